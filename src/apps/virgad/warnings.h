// What becomes a warning: troubles that services and drivers report, and what this host lacks.
#pragma once

#include "drivers/compute/driver.h"
#include "drivers/network/driver.h"

namespace virga::engine {
class Instances;
class Networks;
class Pools;
class Warnings;
}  // namespace virga::engine

namespace virga::virgad {

/// Before the services load: what happens then is told too.
void connect_warnings(engine::Warnings& warnings, engine::Pools& pools, engine::Networks& networks, engine::Instances& instances,
                      network::Driver& network);
/// What the drivers said when they were opened, and the control groups that are missing. What is better now is resolved.
void report_host(engine::Warnings& warnings, const compute::DriverInfo& containers, const compute::DriverInfo& vms);

}  // namespace virga::virgad
