// A profile: configuration and devices that many instances share.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/config.h"

namespace virga {

struct Profile {
  std::string project;
  std::string name;
  std::string description;
  Config config;
  Devices devices;
  std::int64_t revision = 0;  ///< of the document; not part of its text
};

/// The document as the store keeps it.
json::object encode(const Profile& profile);
Result<Profile> decode_profile(const json::object& document);
Result<> check(const Profile& profile);

/// Later profiles win over earlier ones, the instance's own over all; a device of type "none" takes an inherited one away.
Config expand_config(const std::vector<std::shared_ptr<const Profile>>& profiles, const Config& own);
Devices expand_devices(const std::vector<std::shared_ptr<const Profile>>& profiles, const Devices& own);

}  // namespace virga
