// A network, its state and its leases as the API shows them.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "engine/networks/service.h"
#include "model/network.h"

namespace virga::api {

json::object network_json(const Network& network, const std::vector<std::string>& used_by);
json::object network_state_json(const network::BridgeState& state);
json::object lease_json(const engine::Networks::Lease& lease);
std::string network_etag(const Network& network);

}  // namespace virga::api
