// retro delete: documents out of the store.
#include <algorithm>
#include <cstdint>
#include <istream>
#include <memory>
#include <string>
#include <vector>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/connection.h"
#include "cli/exit_code.h"
#include "cli/search_options.h"
#include "common/base/strings.h"

namespace retro::cli {
namespace {

constexpr size_t kIdsMax = 10'000;  // of one call

constexpr char kFooter[] = R"(
Examples:
  retro delete docs/old.txt "docs/big.txt#1"
  retro delete --filter 'source = "docs/big.txt"'      asks first; --yes does not
  retro delete --filter 'year < 2000' --dry-run        only counts

Ids that do not exist are no error; the count says how many documents there were.)";

struct Options {
  CommonOptions common;
  std::vector<std::string> ids;
  std::string filter;
  bool dry_run = false;
  bool yes = false;
};

class DeleteRun {
 public:
  DeleteRun(const Options& options, const Console& console)
      : options_(options), console_(console), stub_(ConnectRetriever(options.common)) {}

  int Run() {
    pb::DeleteDocumentsRequest request;
    request.set_collection(options_.common.collection);
    if (const absl::Status status = FillFilter(options_.filter, &request); !status.ok())
      return Usage(MessageOf(status));
    if (options_.ids.empty() != request.has_filter()) return Usage("name either documents or a --filter to delete by");
    return request.has_filter() ? ByFilter(std::move(request)) : ByIds(std::move(request));
  }

 private:
  int Usage(std::string_view message) const {
    console_.Error(message);
    return kUsage;
  }

  grpc::Status Delete(const pb::DeleteDocumentsRequest& request) {
    pb::DeleteDocumentsResponse response;
    Call call(options_.common.timeout_s);
    grpc::Status status = stub_->DeleteDocuments(call.context(), request, &response);
    count_ += response.deleted_count();
    return status;
  }

  int ByIds(pb::DeleteDocumentsRequest request) {
    request.set_dry_run(options_.dry_run);
    for (size_t begin = 0; begin < options_.ids.size(); begin += kIdsMax) {
      request.clear_document_ids();
      for (size_t i = begin; i < std::min(begin + kIdsMax, options_.ids.size()); ++i) {
        request.add_document_ids(options_.ids[i]);
      }
      if (const grpc::Status status = Delete(request); !status.ok()) return Fail(status);
    }
    return Print();
  }

  int ByFilter(pb::DeleteDocumentsRequest request) {
    if (!options_.yes || options_.dry_run) {
      if (!options_.dry_run && !console_.in_terminal) {
        return Usage(
            "deleting by a filter asks first, but standard input is no terminal: add --yes, or --dry-run to count");
      }
      request.set_dry_run(true);
      if (const grpc::Status status = Delete(request); !status.ok()) return Fail(status);
      if (options_.dry_run) return Print();
      if (!Confirmed()) {
        console_.err << "nothing deleted\n";
        return kFailed;
      }
      count_ = 0;
    }
    request.set_dry_run(false);
    if (const grpc::Status status = Delete(request); !status.ok()) return Fail(status);
    return Print();
  }

  bool Confirmed() const {
    console_.err << "Delete " << Grouped(count_) << " documents? [y/N] " << std::flush;
    std::string answer;
    std::getline(console_.in, answer);
    return answer == "y" || answer == "Y" || answer == "yes";
  }

  int Fail(const grpc::Status& status) const {
    const int code = ReportFailure(console_, RetrieverPeer(options_.common), status);
    if (count_ > 0 && !options_.dry_run) console_.Error(StrCat(count_, " documents were deleted before that"));
    return code;
  }

  int Print() const {
    if (options_.common.json) {
      console_.out << "{\"deleted_count\":" << count_ << ",\"dry_run\":" << (options_.dry_run ? "true" : "false")
                   << "}\n";
    } else {
      console_.out << Grouped(count_) << (options_.dry_run ? " documents would be deleted\n" : " documents deleted\n");
    }
    return kOk;
  }

  const Options& options_;
  const Console& console_;
  const std::unique_ptr<pb::RetrieverService::Stub> stub_;
  uint64_t count_ = 0;
};

}  // namespace

void AddDeleteCommand(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("delete", "Delete documents by id or by a filter");
  command->footer(kFooter);
  command->add_option("ids", options->ids, "Documents")->type_name("ID");
  AddFilterOption(*command, options->filter);
  command->add_flag("--dry-run", options->dry_run, "Only count what would be deleted");
  command->add_flag("--yes,-y", options->yes, "Do not ask");
  AddCommonOptions(*command, options->common);
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] { return DeleteRun(*options, invocation.console).Run(); };
  });
}

}  // namespace retro::cli
