#include "drivers/network/bridge/nft.h"

#include <fmt/format.h>
#include <nftables/libnftables.h>

#include <algorithm>

namespace virga::network {

Nft::Nft() : context_(nft_ctx_new(NFT_CTX_DEFAULT), nft_ctx_free) {
  if (!context_) return;
  nft_ctx_buffer_output(context_.get());
  nft_ctx_buffer_error(context_.get());
}
Nft::~Nft() = default;

Result<> Nft::run(const std::string& commands) {
  auto out = list(commands);
  if (!out) return fail(std::move(out).error());
  return {};
}

Result<std::string> Nft::list(const std::string& command) {
  if (!context_)
    return fail(
        Error(ErrorKind::unavailable, "nftables cannot be used").with_hint("virgad needs root, and a kernel with nf_tables"));
  const int code = nft_run_cmd_from_buffer(context_.get(), command.c_str());
  std::string out = nft_ctx_get_output_buffer(context_.get());
  std::string words = nft_ctx_get_error_buffer(context_.get());
  if (code == 0) return out;
  words = words.substr(0, words.find('\n'));
  const auto says = [&](std::string_view text) { return words.find(text) != std::string::npos; };
  auto kind = ErrorKind::internal;
  if (says("No such file or directory")) kind = ErrorKind::not_found;
  if (says("Operation not supported")) kind = ErrorKind::unsupported;
  if (says("Operation not permitted")) kind = ErrorKind::denied;
  return fail(kind, fmt::format("nftables refuses the rules: {}", words.empty() ? "no reason given" : words));
}

}  // namespace virga::network
