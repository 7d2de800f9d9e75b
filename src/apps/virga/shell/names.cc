// Live names for completion: one table of what the daemon lists, by the word that stands in usage lines.
#include <fmt/format.h>

#include <algorithm>

#include "apps/virga/app.h"
#include "apps/virga/shell/complete.h"
#include "apps/virga/values.h"
#include "client/url.h"

namespace virga::cli {
namespace {

struct Source {
  std::string_view kind;
  std::string_view list;   ///< of the API
  std::string_view about;  ///< the field that is shown beside the name
  std::string_view name = "name";
  bool in_project = true;
};

const std::vector<Source>& sources() {
  static const std::vector<Source> table = {
      {"certificate", "/1.0/certificates", "name", "fingerprint", false},
      {"fingerprint", "/1.0/images", "", "fingerprint"},
      {"image", "/1.0/images/aliases", "description"},
      {"image", "/1.0/images", "", "fingerprint"},
      {"instance", "/1.0/instances", "status"},
      {"network", "/1.0/networks", "description"},
      {"operation", "/1.0/operations", "description", "id"},
      {"pool", "/1.0/storage-pools", "driver", "name", false},
      {"profile", "/1.0/profiles", "description"},
      {"project", "/1.0/projects", "description", "name", false},
  };
  return table;
}

/// Which of the server's groups of keys a command speaks of.
bool group_fits(const std::vector<std::string>& path, std::string_view group) {
  const auto noun = path.empty() ? std::string("config") : path[0];
  if (noun == "network" || noun == "storage") return group.starts_with(noun);
  if (noun == "project") return group == "project";
  if (noun == "config") return group == "instance" || group == "server";
  return group == "instance";
}

class LiveNames {
 public:
  explicit LiveNames(App& app) : app_(app) {}

  std::vector<Candidate> operator()(const NameRequest& request) {
    remote_ = request.remote;
    if (remote_.empty() && !request.words.empty()) remote_ = client::split_remote(request.words[0]).first;
    if (remote_.empty()) remote_ = app_.remote();
    if (request.kind == "remote" || request.kind == "remote:") return remotes(request.kind.substr(6));
    if (request.kind == "key") return keys(request);
    if (request.kind.starts_with("alias") && request.path.size() > 1 && request.path[0] == "alias") return aliases();
    const bool of_device = request.path.size() > 1 && request.path[request.path.size() - 2] == "device";
    if (request.kind.starts_with("device") || (of_device && (request.kind == "type" || request.kind == "name")))
      return devices(request);
    if (request.kind == "volume") return volumes(request);
    const bool image_alias = request.kind == "alias";
    std::vector<Candidate> out;
    for (const auto& source : sources())
      if (source.kind == request.kind || (image_alias && source.list == "/1.0/images/aliases")) take(out, source, request);
    return out;
  }

 private:
  Url url(std::string_view base, const NameRequest& request) {
    return Url(base).query("project", request.project.empty() ? app_.project_of(remote_) : request.project);
  }

  std::vector<Candidate> remotes(std::string_view suffix) {
    std::vector<Candidate> out;
    auto config = app_.config();
    if (!config) return out;
    for (const auto& [name, remote] : (*config)->remotes)
      out.push_back({name + std::string(suffix), remote.address.empty() ? "the daemon of this machine" : remote.address});
    return out;
  }

  json::array list(Url from) {
    auto api = app_.api_of(remote_);
    if (!api) return {};
    auto answer = (*api)->get(std::move(from).query("recursion", "1"));
    if (!answer) return {};
    if (answer->is_array()) return std::move(answer->get_array());
    json::array out;  // operations come in groups
    if (answer->is_object())
      for (auto& [state, group] : answer->get_object())
        if (group.is_array()) out.insert(out.end(), group.get_array().begin(), group.get_array().end());
    return out;
  }

  json::object object(Url from) {
    auto api = app_.api_of(remote_);
    if (!api) return {};
    return (*api)->object(from).value_or(json::object());
  }

  void take(std::vector<Candidate>& out, const Source& source, const NameRequest& request) {
    for (const auto& entry : objects_of(list(source.in_project ? url(source.list, request) : Url(source.list)))) {
      auto name = text_of(entry, source.name);
      if (source.name == "fingerprint") name = name.substr(0, 12);
      if (!name.empty()) out.push_back({std::move(name), source.about.empty() ? std::string() : text_of(entry, source.about)});
    }
  }

  std::vector<Candidate> keys(const NameRequest& request) {
    std::vector<Candidate> out;
    const auto all = object(Url("/1.0/metadata/configuration"));
    for (const auto& [group, sections] : object_of(all, "configs")) {
      if (!group_fits(request.path, group) || !sections.is_object()) continue;
      for (const auto& [section, content] : sections.get_object()) {
        if (!content.is_object()) continue;
        for (const auto& entry : objects_of(array_of(content.get_object(), "keys")))
          for (const auto& [key, about] : entry) {
            std::string name(key);
            if (name.ends_with('*')) name.pop_back();
            out.push_back({std::move(name), about.is_object() ? text_of(about.get_object(), "shortdesc") : std::string()});
          }
      }
    }
    return out;
  }

  std::vector<Candidate> devices(const NameRequest& request) {
    if (request.kind == "type")
      return {{"disk"},  {"gpu"}, {"infiniband"}, {"nic"},       {"none"},         {"pci"},
              {"proxy"}, {"tpm"}, {"unix-block"}, {"unix-char"}, {"unix-hotplug"}, {"usb"}};
    if (request.words.empty()) return {};
    const bool profile = !request.path.empty() && request.path[0] == "profile";
    std::vector<Candidate> out;
    const auto owner = object(url(profile ? "/1.0/profiles" : "/1.0/instances", request).segment(plain(request.words[0])));
    for (const auto& [name, device] : object_of(owner, "devices"))
      out.push_back({std::string(name), device.is_object() ? text_of(device.get_object(), "type") : std::string()});
    return out;
  }

  std::vector<Candidate> volumes(const NameRequest& request) {
    std::vector<Candidate> out;
    if (request.words.empty()) return out;
    for (const auto& volume :
         objects_of(list(url("/1.0/storage-pools", request).segment(plain(request.words[0])).segment("volumes")))) {
      const auto type = text_of(volume, "type");
      out.push_back(
          {type == "custom" ? text_of(volume, "name") : type + "/" + text_of(volume, "name"), text_of(volume, "content_type")});
    }
    return out;
  }

  std::vector<Candidate> aliases() {
    std::vector<Candidate> out;
    auto config = app_.config();
    if (!config) return out;
    for (const auto& [name, target] : (*config)->aliases) out.push_back({name, target});
    return out;
  }

  static std::string plain(const std::string& word) { return client::split_remote(word).second; }

  App& app_;
  std::string remote_;
};

}  // namespace

Names live_names(App& app) {
  return LiveNames(app);
}

}  // namespace virga::cli
