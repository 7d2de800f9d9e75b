// One copy of an instance's root under way. Private to this folder.
#pragma once

#include <memory>

#include "base/transfer.h"
#include "model/instance.h"

namespace virga::engine {

struct Copying {
  std::shared_ptr<const Instance> source, target;
  bool over = false;   ///< a refresh of a target that is there
  bool pause = false;  ///< the source runs
  std::shared_ptr<TransferControl> control;
};

}  // namespace virga::engine
