// What the daemon may ask about the guest as a whole: its state, and to go down.
#pragma once

#include "wire/agent/messages.h"

namespace virga::agent {

/// Writes the payload of a state_reply; lists end where the room ends.
void write_state(Writer& w);

/// Starts to shut the guest down or to restart it; returns at once.
void go_down(Power action);

}  // namespace virga::agent
