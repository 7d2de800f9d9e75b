// What the daemon may ask about the guest as a whole: its state, to hold its file systems still, and to go down.
#pragma once

#include "wire/agent/messages.h"

namespace virga::agent {

/// Writes the payload of a state_reply; lists end where the room ends.
void write_state(Writer& w);

/// Starts to shut the guest down or to restart it; returns at once.
void go_down(Power action);

/// Writes out all file systems on devices and keeps writers waiting until thaw_files(), or so long at most. False: it cannot.
bool freeze_files(unsigned longest_ms);
/// Not frozen is success.
void thaw_files();

}  // namespace virga::agent
