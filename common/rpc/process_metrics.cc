#include "common/rpc/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

namespace retro {
namespace {

const std::chrono::system_clock::time_point kStart = std::chrono::system_clock::now();  // as the program is loaded

// Entries of a folder of /proc.
double CountOf(const std::string& folder) {
  std::error_code error;
  int count = 0;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) ++count;
  return count;
}

double ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  double pages_mapped = 0, pages_resident = 0;
  statm >> pages_mapped >> pages_resident;
  return pages_resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

}  // namespace

void WatchProcess(Metrics& metrics) {
  prometheus::Gauge& resident = metrics.Gauge("process_resident_memory_bytes", "Memory that is resident.");
  prometheus::Gauge& files = metrics.Gauge("process_open_fds", "Open files and connections.");
  prometheus::Gauge& threads = metrics.Gauge("process_threads", "Threads.");
  metrics.BeforeScrape([&resident, &files, &threads] {
    resident.Set(ResidentBytes());
    files.Set(CountOf("/proc/self/fd"));
    threads.Set(CountOf("/proc/self/task"));
  });
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  metrics.Gauge("process_max_fds", "As many files and connections as it may open.")
      .Set(static_cast<double>(limit.rlim_cur));
  metrics.Gauge("process_start_time_seconds", "When it was started, in seconds since 1970.")
      .Set(std::chrono::duration<double>(kStart.time_since_epoch()).count());
}

}  // namespace retro
