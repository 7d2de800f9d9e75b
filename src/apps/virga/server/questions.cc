#include "apps/virga/server/questions.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"

namespace virga::cli {
namespace {

bool contains(const std::vector<std::string>& list, const std::string& word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

Result<> is_new(const std::vector<std::string>& taken, const std::string& name, std::string_view noun) {
  if (contains(taken, name)) return fail(ErrorKind::exists, fmt::format("The {} '{}' exists already", noun, name));
  return {};
}

Result<> subnet(const std::string& text) {
  if (text == "auto" || text == "none") return {};
  if (text.find('/') == std::string::npos)
    return fail(ErrorKind::invalid, "Write an address with its length, such as 10.1.2.1/24, or auto or none");
  return {};  // the server knows the rest
}

Result<> port_number(const std::string& text) {
  VIRGA_CHECK(parse_integer(text, 1, 65535));
  return {};
}

struct Made {
  std::string pool, network;
};

Result<> ask_pool(const Prompt& prompt, const HostFacts& facts, json::object& preseed, Made& made) {
  VIRGA_TRY(bool wanted, ask_yes_no(prompt, "Do you want to configure a new storage pool?", facts.pools.empty()));
  if (!wanted) {
    if (!facts.pools.empty()) made.pool = facts.pools.front();
    return {};
  }
  VIRGA_TRY(made.pool, ask_text(prompt, "Name of the new storage pool", "default",
                                [&](const std::string& name) { return is_new(facts.pools, name, "storage pool"); }));
  const auto fallback = facts.storage_drivers.empty() ? std::string("dir") : facts.storage_drivers.front();
  VIRGA_TRY(auto driver,
            ask_text(prompt, fmt::format("Name of the storage backend to use ({})", fmt::join(facts.storage_drivers, ", ")),
                     contains(facts.storage_drivers, "dir") ? "dir" : fallback, [&](const std::string& name) -> Result<> {
                       if (contains(facts.storage_drivers, name)) return {};
                       return fail(ErrorKind::invalid, fmt::format("There is no backend '{}'", name));
                     }));
  VIRGA_TRY(auto source, ask_text(prompt, "Where it lies: a directory or a device (empty: below virga's own directory)", ""));
  json::object config;
  if (!source.empty()) config["source"] = source;
  preseed["storage_pools"] = json::array{json::object{{"name", made.pool}, {"driver", driver}, {"config", std::move(config)}}};
  return {};
}

Result<> ask_network(const Prompt& prompt, const HostFacts& facts, json::object& preseed, Made& made) {
  VIRGA_TRY(bool wanted, ask_yes_no(prompt, "Would you like to create a new local network bridge?", facts.networks.empty()));
  if (!wanted) {
    if (!facts.networks.empty()) made.network = facts.networks.front();
    return {};
  }
  VIRGA_TRY(made.network, ask_text(prompt, "What should the new bridge be called?", "virgabr0",
                                   [&](const std::string& name) { return is_new(facts.networks, name, "network"); }));
  json::object config;
  for (const char* family : {"ipv4", "ipv6"}) {
    VIRGA_TRY(auto address, ask_text(prompt,
                                     fmt::format("What {} address should be used? (CIDR subnet notation, \"auto\" or \"none\")",
                                                 family == std::string_view("ipv4") ? "IPv4" : "IPv6"),
                                     "auto", subnet));
    config[fmt::format("{}.address", family)] = address;
    if (address == "none" || address == "auto") continue;
    VIRGA_TRY(bool nat, ask_yes_no(prompt,
                                   fmt::format("Would you like virga to NAT {} traffic on your bridge?",
                                               family == std::string_view("ipv4") ? "IPv4" : "IPv6"),
                                   true));
    config[fmt::format("{}.nat", family)] = nat ? "true" : "false";
  }
  preseed["networks"] = json::array{json::object{{"name", made.network}, {"type", "bridge"}, {"config", std::move(config)}}};
  return {};
}

Result<> ask_server(const Prompt& prompt, json::object& preseed) {
  VIRGA_TRY(bool wanted, ask_yes_no(prompt, "Would you like the server to be available over the network?", false));
  if (!wanted) return {};
  VIRGA_TRY(auto address, ask_text(prompt, "Address to bind to (not including port)", "all"));
  VIRGA_TRY(auto port, ask_text(prompt, "Port to bind to", "8443", port_number));
  const bool bare_v6 = address.find(':') != std::string::npos && address[0] != '[';
  const auto host = address == "all" ? std::string("[::]") : bare_v6 ? fmt::format("[{}]", address) : address;
  preseed["config"] = json::object{{"core.https_address", fmt::format("{}:{}", host, port)}};
  return {};
}

}  // namespace

Result<bool> ask_yes_no(const Prompt& prompt, std::string_view question, bool fallback) {
  for (;;) {
    VIRGA_TRY(auto answer, prompt.ask(fmt::format("{} (yes/no) [default={}]: ", question, fallback ? "yes" : "no")));
    if (answer.empty()) return fallback;
    for (const char* yes : {"yes", "y", "Yes", "YES", "Y"})
      if (answer == yes) return true;
    for (const char* no : {"no", "n", "No", "NO", "N"})
      if (answer == no) return false;
    prompt.tell("Invalid input: yes or no is expected");
  }
}

Result<std::string> ask_text(const Prompt& prompt, std::string_view question, std::string_view fallback,
                             const std::function<Result<>(const std::string&)>& check) {
  for (;;) {
    VIRGA_TRY(auto answer,
              prompt.ask(fallback.empty() ? fmt::format("{}: ", question) : fmt::format("{} [default={}]: ", question, fallback)));
    if (answer.empty()) answer = fallback;
    if (!check) return answer;
    auto good = check(answer);
    if (good) return answer;
    prompt.tell(fmt::format("Invalid input: {}", good.error().message()));
  }
}

Result<Answers> ask_everything(const Prompt& prompt, const HostFacts& facts) {
  Answers out;
  Made made;
  VIRGA_CHECK(ask_pool(prompt, facts, out.preseed, made));
  VIRGA_CHECK(ask_network(prompt, facts, out.preseed, made));
  VIRGA_CHECK(ask_server(prompt, out.preseed));
  json::object devices;
  if (!made.pool.empty()) devices["root"] = json::object{{"type", "disk"}, {"path", "/"}, {"pool", made.pool}};
  if (!made.network.empty()) devices["eth0"] = json::object{{"type", "nic"}, {"name", "eth0"}, {"network", made.network}};
  if (!devices.empty()) out.preseed["profiles"] = json::array{json::object{{"name", "default"}, {"devices", std::move(devices)}}};
  VIRGA_TRY(out.print, ask_yes_no(prompt, "Would you like a YAML \"init\" preseed to be printed?", false));
  return out;
}

}  // namespace virga::cli
