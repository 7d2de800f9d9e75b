// The grammar of names, one place for all nouns: what passes here is safe as a file name, a URL segment and a host name.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace virga {

/// Instances: 1 to 63 letters, digits and dashes; begins with a letter, does not end with a dash: a host name. Errors: invalid,
/// field "name".
Result<> check_instance_name(std::string_view name);
/// Profiles, pools, projects, volumes: 1 to 63 letters, digits, '.', '_' and '-'; begins with a letter or digit. `noun` is for the
/// message.
Result<> check_object_name(std::string_view noun, std::string_view name);
/// Network interfaces on the host: 2 to 15 letters, digits, '.', '_' and '-'; begins with a letter.
Result<> check_interface_name(std::string_view field, std::string_view name);
/// Devices of instances: 1 to 64 letters, digits, '.', '_', '-' and ':'.
Result<> check_device_name(std::string_view name);
/// Image aliases: 1 to 200 printable characters without blanks, quotes or control characters; not "." or ".." between slashes.
Result<> check_alias_name(std::string_view name);
/// One line of text for people: at most 1024 bytes of UTF-8 without control characters but the blank, tab and newline.
Result<> check_description(std::string_view text);

/// The candidate that is nearest to `word` by edit distance, where it is near enough to be meant; empty otherwise.
std::string nearest(std::string_view word, std::initializer_list<std::string_view> candidates);

/// "default" is left out of paths and host names: "web" in project default, "lab_web" in project lab.
std::string project_prefixed(std::string_view project, std::string_view name);

}  // namespace virga
