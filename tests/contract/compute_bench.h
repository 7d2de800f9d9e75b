// One compute driver with what its guests need. A real driver's bench goes into contract/compute_<driver>.h, as a class derived
// from Bench; compute_test.cc includes it where it exists and adds it to its list.
#pragma once

#include <signal.h>

#include <memory>
#include <string>

#include "drivers/compute/driver.h"

namespace virga::compute {

class Bench {
 public:
  virtual ~Bench() = default;
  Executor executor;  ///< the test's event loop; set before driver() is called
  /// Why this host cannot run the suite; empty: it can.
  virtual std::string skip() { return {}; }
  /// A driver as a daemon has it after its start; called again for each "restart".
  virtual std::unique_ptr<Driver> driver() = 0;
  /// What a small guest needs, with its directories made; its init must end soon after it was asked to shut down.
  virtual GuestSpec spec(const std::string& id) = 0;
  /// Ends a running guest from outside.
  virtual void end_guest(Driver& driver, const std::string& id) { ::kill(driver.status(id).pid, SIGKILL); }
  /// argv of: print a word; copy input to output; end with a code; wait for ever.
  virtual std::vector<std::string> echo(const std::string& word) { return {"echo", word}; }
  virtual std::vector<std::string> cat() { return {"cat"}; }
  virtual std::vector<std::string> exit_with(int code) { return {"sh", "-c", "exit " + std::to_string(code)}; }
  virtual std::vector<std::string> wait_forever() { return {"sleep", "1000"}; }
  /// What is left of a guest after remove(), in words; empty: nothing.
  virtual std::string leftovers(const std::string&) { return {}; }
  virtual Milliseconds patience() { return Milliseconds(60'000); }
};

}  // namespace virga::compute
