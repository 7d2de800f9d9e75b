// virga-worker: reads one image for virgad and ends. See drivers/image/confined/worker/worker.h.
#include "drivers/image/confined/worker/worker.h"

int main(int argc, char** argv) { return virga::image::worker_main(argc, argv); }
