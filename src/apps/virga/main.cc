// virga: the command line.
#include <clocale>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "apps/virga/run.h"

int main(int argc, char** argv) {
  std::setlocale(LC_CTYPE, "C.UTF-8");
  try {
    return virga::cli::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const std::exception& e) {
    std::fprintf(stderr, "Error: virga has a bug: %s\n", e.what());
    return 1;
  }
}
