// Telling systemd that the daemon is ready or stops (sd_notify's protocol); nothing happens without systemd.
#pragma once

#include <string_view>

namespace virga::virgad {

void notify_supervisor(std::string_view state);

}  // namespace virga::virgad
