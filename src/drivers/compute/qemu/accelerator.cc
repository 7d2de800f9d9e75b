#include "drivers/compute/qemu/accelerator.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstring>

#include "io/fd.h"
#include "io/file.h"
#include "io/process.h"

namespace virga::compute::qemu_driver {

bool has_virtualization_flag(std::string_view cpuinfo) {
  for (std::size_t at = 0; at < cpuinfo.size();) {
    auto end = cpuinfo.find('\n', at);
    if (end == std::string_view::npos) end = cpuinfo.size();
    auto line = cpuinfo.substr(at, end - at);
    at = end + 1;
    if (!line.starts_with("flags")) continue;
    line.remove_prefix(std::min(line.size(), line.find(':') + 1));
    while (!line.empty()) {
      const auto space = line.find(' ');
      const auto word = line.substr(0, space);
      if (word == "vmx" || word == "svm") return true;
      if (space == std::string_view::npos) break;
      line.remove_prefix(space + 1);
    }
  }
  return false;
}

KvmFacts kvm_facts() {
  KvmFacts facts;
  struct stat there{};
  if (::stat("/dev/kvm", &there) == 0) {
    facts.mode = there.st_mode & 07777;
    facts.owner = there.st_uid;
    facts.group = there.st_gid;
  }
  auto kvm = io::open_path("/dev/kvm", O_RDWR);
  if (!kvm) {
    const auto kind = kvm.error().kind();
    facts.open_error = kind == ErrorKind::not_found ? ENOENT : kind == ErrorKind::denied ? EACCES : EIO;
    return facts;
  }
  if (::ioctl(kvm->get(), KVM_GET_API_VERSION, 0) == KVM_API_VERSION) {
    io::UniqueFd machine(::ioctl(kvm->get(), KVM_CREATE_VM, 0));
    facts.usable = static_cast<bool>(machine);
  }
  facts.processor = has_virtualization_flag(io::read_file("/proc/cpuinfo").value_or(""));
  return facts;
}

Accelerator choose_accelerator(const KvmFacts& facts) {
  Accelerator a;
  auto no = [&a](std::string reason, std::string remedy) {
    a.reason = std::move(reason);
    a.remedy = std::move(remedy);
    return a;
  };
  if (facts.open_error == ENOENT)
    return no("there is no /dev/kvm",
              "enable virtualization in the firmware (or nested virtualization on the outer host) and load kvm_intel or kvm_amd");
  if (facts.open_error != 0)
    return no(fmt::format("/dev/kvm does not open: {}", std::strerror(facts.open_error)),
              "load kvm_intel or kvm_amd, and let root open /dev/kvm");
  // Some nested hosts (pvm) offer a /dev/kvm on which stock kernels hang at boot; they show neither flag.
  if (!facts.processor)
    return no("/dev/kvm is there, but the processor shows neither vmx nor svm", "enable nested virtualization on the outer host");
  if (!facts.usable) return no("/dev/kvm refuses to make a virtual machine", "look into the kernel log");
  if ((facts.mode & 0006) != 0006) {
    if ((facts.mode & 0060) != 0060 || facts.group == 0)
      return no("only root may open /dev/kvm", "chgrp kvm /dev/kvm && chmod 0660 /dev/kvm");
    a.group = facts.group;
  }
  a.kvm = true;
  return a;
}

Result<Version> parse_version(std::string_view text) {
  constexpr std::string_view before = "version ";
  const auto at = text.find(before);
  if (at == std::string_view::npos) return fail(ErrorKind::invalid, "QEMU does not tell its version");
  text.remove_prefix(at + before.size());
  text = text.substr(0, text.find_first_of(" \n("));
  Version v;
  v.text = text;
  for (int* part : {&v.major, &v.minor, &v.micro}) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *part);
    if (error != std::errc()) return fail(ErrorKind::invalid, fmt::format("unreadable QEMU version '{}'", v.text));
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (text.empty() || text[0] != '.') break;
    text.remove_prefix(1);
  }
  if (v < Version{7, 2, 0, {}})
    return fail(Error(ErrorKind::unsupported, fmt::format("QEMU {} is too old", v.text)).with_hint("install QEMU 7.2 or newer"));
  return v;
}

Task<Result<Version>> qemu_version(std::string program) {
  io::ProcessSpec spec;
  spec.argv = {std::move(program), "--version"};
  VIRGA_CO_TRY(auto text, co_await io::check_process(std::move(spec)));
  co_return parse_version(text);
}

}  // namespace virga::compute::qemu_driver
