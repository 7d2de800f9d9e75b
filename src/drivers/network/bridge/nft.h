// libnftables, which runs a whole text of commands as one transaction of the kernel. Synchronous: used in the driver's
// BlockingPool, in the network namespace of the thread that made it.
#pragma once

#include <memory>
#include <string>

#include "base/error.h"

struct nft_ctx;

namespace virga::network {

class Nft {
 public:
  Nft();
  ~Nft();
  Nft(const Nft&) = delete;
  Nft& operator=(const Nft&) = delete;
  /// All of it takes effect, or nothing. Errors: not_found (a table or chain it needs is missing), unsupported (the kernel lacks
  /// something), denied, internal.
  Result<> run(const std::string& commands);
  /// What a `list` command prints.
  Result<std::string> list(const std::string& command);

 private:
  std::unique_ptr<nft_ctx, void (*)(nft_ctx*)> context_;
};

}  // namespace virga::network
