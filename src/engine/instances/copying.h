// One copy of an instance's root under way. Private to this folder.
#pragma once

#include <memory>
#include <string>

#include "base/transfer.h"
#include "model/instance.h"

namespace virga::engine {

struct Copying {
  std::shared_ptr<const Instance> source, target;
  std::string snapshot = {};    ///< of the source; empty: as it is now
  bool with_snapshots = false;  ///< those of the source are copied, too
  bool over = false;            ///< a refresh of a target that is there
  bool pause = false;           ///< the source runs
  std::shared_ptr<TransferControl> control;
};

}  // namespace virga::engine
