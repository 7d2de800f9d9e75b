// virga-worker: reads one image for virgad and ends. See drivers/image/confined/worker/worker.h.
#include "drivers/image/confined/worker/worker.h"

#if __has_feature(address_sanitizer)
// The sandbox denies what the search for leaks at the end needs.
extern "C" const char* __asan_default_options() {
  return "detect_leaks=0";
}
#endif

int main(int argc, char** argv) {
  return virga::image::worker_main(argc, argv);
}
