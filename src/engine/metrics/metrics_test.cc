#include "engine/metrics/metrics.h"

#include <gtest/gtest.h>

#include "engine/metrics/exposition.h"

namespace virga::engine {
namespace {

TEST(Exposition, WritesFamiliesWithTheirSamplesAndAnEnd) {
  Exposition out;
  out.family("a_total", MetricType::counter, "Things.");
  out.add({{"name", "q\"\\\n\x01"}, {"empty", ""}}, std::uint64_t{18446744073709551615u});
  out.add({}, 0.25);
  out.family("never", MetricType::gauge, "Has no sample.");
  EXPECT_EQ(out.take(),
            "# TYPE a counter\n# HELP a Things.\na_total{name=\"q\\\"\\\\\\n?\"} 18446744073709551615\na_total 0.25\n# EOF\n");
}

SamplePtr sample() {
  auto s = std::make_shared<Sample>();
  s->stats.processes = 7;
  s->stats.cpus = 2;
  s->stats.cpu_user_ns = 1'500'000'000;
  s->stats.memory_total = 100;
  s->stats.memory_used = 130;  // a guest may say anything
  s->stats.memory_parts = {{"Cached", 5}};
  s->stats.disks.push_back({"root", 1, 2, 3, 4});
  s->stats.filesystems.push_back({"overlay", "overlay", "/", 10, 6, 5});
  compute::GuestStats::Interface eth0;
  eth0.name = "eth0";
  eth0.bytes_in = 9;
  s->stats.interfaces = {eth0, eth0};
  return s;
}

TEST(Metrics, HaveTheNamesAndLabelsOfIncus) {
  const ServerCounts counts{.operations = 1, .warnings = 2, .uptime_seconds = 3};
  const auto text = render_metrics({{"db1", "lab", "container", sample()}, {"db2", "lab", "container", nullptr}}, &counts);
  for (const char* line : {"incus_cpu_seconds_total{cpu=\"0\",mode=\"user\",name=\"db1\",project=\"lab\",type=\"container\"} 1.5\n",
                           "incus_cpu_effective_total{name=\"db1\",project=\"lab\",type=\"container\"} 2\n",
                           "incus_memory_MemFree_bytes{name=\"db1\",project=\"lab\",type=\"container\"} 0\n",
                           "incus_memory_Cached_bytes{name=\"db1\",project=\"lab\",type=\"container\"} 5\n",
                           "incus_disk_writes_completed_total{device=\"root\",name=\"db1\",project=\"lab\",type=\"container\"} 4\n",
                           "incus_filesystem_avail_bytes{device=\"overlay\",fstype=\"overlay\",mountpoint=\"/\",name=\"db1\","
                           "project=\"lab\",type=\"container\"} 5\n",
                           "incus_procs_total{name=\"db1\",project=\"lab\",type=\"container\"} 7\n", "incus_operations_total 1\n",
                           "incus_warnings_total 2\n", "incus_uptime_seconds 3\n"})
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  EXPECT_EQ(text.find("db2"), std::string::npos) << "no sample yet";
  const auto series = text.find("incus_network_receive_bytes_total{");
  EXPECT_EQ(text.find("incus_network_receive_bytes_total{", series + 1), std::string::npos) << "the same series twice";
  EXPECT_EQ(render_metrics({}, nullptr), "# EOF\n");
}

}  // namespace
}  // namespace virga::engine
