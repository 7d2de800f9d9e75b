#include "engine/server/later_keys.h"

#include <array>

namespace virga::engine {
namespace {

struct Later {
  std::string_view key;  ///< ends with '*': any key that begins so
  std::string_view why;
};

constexpr std::string_view certificates = "the server's certificate is its own, and clients know it by its fingerprint";
constexpr std::string_view one_model = "who may do what is decided by certificates and the projects they are restricted to";
constexpr std::string_view no_cluster = "there are no clusters yet";
constexpr std::string_view no_bgp = "addresses are not announced to routers yet";
constexpr std::string_view no_ovn = "networks are bridges: there is no OVN yet";
constexpr std::string_view no_logging = "events are not sent elsewhere yet: follow them with 'virga monitor'";
constexpr std::string_view no_oidc = "clients are known by certificates: there is no login by OpenID Connect yet";
constexpr std::string_view no_linstor = "there is no LINSTOR driver yet";
constexpr std::string_view own_volumes = "there are no custom volumes yet: these files lie in the state directory";
constexpr std::string_view no_tpm = "instances have no TPM yet";

constexpr std::array later{
    Later{"acme.agree_tos", certificates},
    Later{"acme.ca_url", certificates},
    Later{"acme.challenge", certificates},
    Later{"acme.domain", certificates},
    Later{"acme.eab.hmac", certificates},
    Later{"acme.eab.kid", certificates},
    Later{"acme.email", certificates},
    Later{"acme.http.port", certificates},
    Later{"acme.provider", certificates},
    Later{"acme.provider.environment", certificates},
    Later{"acme.provider.resolvers", certificates},
    Later{"authorization.client.default", one_model},
    Later{"authorization.client.oidc", one_model},
    Later{"authorization.client.tls", one_model},
    Later{"authorization.client.tls-restricted", one_model},
    Later{"authorization.client.unix", one_model},
    Later{"authorization.openfga.api.token", one_model},
    Later{"authorization.openfga.api.url", one_model},
    Later{"authorization.openfga.store.id", one_model},
    Later{"authorization.openfga.tls.identifier", one_model},
    Later{"authorization.scriptlet", one_model},
    Later{"backups.compression_algorithm", "there are no backups yet"},
    Later{"cluster.healing_threshold", no_cluster},
    Later{"cluster.https_address", no_cluster},
    Later{"cluster.images_minimal_replica", no_cluster},
    Later{"cluster.join_token_expiry", no_cluster},
    Later{"cluster.max_standby", no_cluster},
    Later{"cluster.max_voters", no_cluster},
    Later{"cluster.offline_threshold", no_cluster},
    Later{"cluster.rebalance.batch", no_cluster},
    Later{"cluster.rebalance.cooldown", no_cluster},
    Later{"cluster.rebalance.interval", no_cluster},
    Later{"cluster.rebalance.threshold", no_cluster},
    Later{"core.bgp_address", no_bgp},
    Later{"core.bgp_asn", no_bgp},
    Later{"core.bgp_routerid", no_bgp},
    Later{"core.debug_address", "the daemon has no address for debuggers: read its log and /1.0/metrics"},
    Later{"core.dns_address", "there are no network zones yet"},
    Later{"core.storage_buckets_address", "there are no storage buckets yet"},
    Later{"core.syslog_socket", "there is no OVN yet whose log would come in here"},
    Later{"core.trust_ca_certificates", "clients are trusted one by one, by the fingerprint of their certificate"},
    Later{"instances.lxcfs.per_instance", "there is no lxcfs: a container sees what the kernel shows it"},
    Later{"instances.nic.host_name", "interfaces on the host get names of virga's own"},
    Later{"instances.placement.scriptlet", no_cluster},
    Later{"instances.tpm.platform_cert", no_tpm},
    Later{"instances.tpm.platform_key", no_tpm},
    Later{"logging.*", no_logging},
    Later{"loki.api.ca_cert", no_logging},
    Later{"loki.api.url", no_logging},
    Later{"loki.auth.password", no_logging},
    Later{"loki.auth.username", no_logging},
    Later{"loki.instance", no_logging},
    Later{"loki.labels", no_logging},
    Later{"loki.loglevel", no_logging},
    Later{"loki.types", no_logging},
    Later{"network.hwaddr_pattern", "MAC addresses begin with 00:16:3e"},
    Later{"network.ovn.ca_cert", no_ovn},
    Later{"network.ovn.client_cert", no_ovn},
    Later{"network.ovn.client_key", no_ovn},
    Later{"network.ovn.integration_bridge", no_ovn},
    Later{"network.ovn.northbound_connection", no_ovn},
    Later{"network.ovs.connection", no_ovn},
    Later{"oidc.audience", no_oidc},
    Later{"oidc.claim", no_oidc},
    Later{"oidc.client.id", no_oidc},
    Later{"oidc.issuer", no_oidc},
    Later{"oidc.scopes", no_oidc},
    Later{"storage.backups_volume", own_volumes},
    Later{"storage.images_volume", own_volumes},
    Later{"storage.linstor.ca_cert", no_linstor},
    Later{"storage.linstor.client_cert", no_linstor},
    Later{"storage.linstor.client_key", no_linstor},
    Later{"storage.linstor.controller_connection", no_linstor},
    Later{"storage.linstor.satellite.name", no_linstor},
    Later{"storage.logs_volume", own_volumes},
};

}  // namespace

std::string_view why_not_supported(std::string_view key) noexcept {
  for (const auto& [known, why] : later) {
    const bool family = known.ends_with('*');
    if (family ? key.starts_with(known.substr(0, known.size() - 1)) && key.size() >= known.size() : key == known) return why;
  }
  return {};
}

}  // namespace virga::engine
