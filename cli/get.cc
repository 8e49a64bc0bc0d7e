// retro get: one document, or its chunks.
#include <memory>
#include <string>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/connection.h"
#include "cli/document_json.h"
#include "cli/exit_code.h"
#include "cli/message_json.h"
#include "common/base/hash.h"
#include "fmt/format.h"
#include "google/protobuf/util/time_util.h"

namespace retro::cli {
namespace {

constexpr uint32_t kPageChunks = 1024;

constexpr char kFooter[] = R"(
Examples:
  retro get docs/handbook.html
  retro get docs/handbook.html --chunks
  retro get docs/handbook.html --json              facts too (retro.retriever.v1.GetDocumentResponse)

Facts go to standard error, the text to standard output. With --chunks and --json, one chunk a line.)";

struct Options {
  CommonOptions common;
  std::string id;
  bool chunks = false;
};

int GetDocument(const Options& options, const Console& console) {
  pb::GetDocumentRequest request;
  request.set_collection(options.common.collection);
  request.set_document_id(options.id);
  pb::GetDocumentResponse response;
  Call call(options.common.timeout_s);
  const grpc::Status status = ConnectRetriever(options.common)->GetDocument(call.context(), request, &response);
  if (!status.ok()) return ReportFailure(console, RetrieverPeer(options.common), status);
  if (options.common.json) {
    console.out << MessageToJson(response) << '\n';
    return kOk;
  }
  const pb::Document& document = response.document();
  const pb::DocumentInfo& info = response.info();
  console.err << "title   " << OneLine(document.title()) << "\nsource  " << OneLine(document.source()) << "\nwritten "
              << google::protobuf::util::TimeUtil::ToString(info.write_time()) << "\nchunks  " << info.chunk_count()
              << "\nbytes   " << info.text_bytes() << "\nhash    " << HexEncode(info.content_hash()) << "\n";
  for (const auto& [key, values] : document.metadata()) {
    console.err << fmt::format("{:7} {}\n", OneLine(key), MetadataToText(values));
  }
  const std::string text = console.out_terminal ? Printable(document.text()) : document.text();
  console.out << text << (text.ends_with('\n') ? "" : "\n");
  return kOk;
}

void PrintChunk(const pb::Chunk& chunk, const Options& options, const Console& console) {
  if (options.common.json) {
    console.out << MessageToJson(chunk) << '\n';
    return;
  }
  const Style style = StyleFor(console.out_terminal);
  console.out << fmt::format("{}chunk {}, bytes {} to {}{}\n", style.bold, chunk.chunk_number(),
                             chunk.byte_range().begin(), chunk.byte_range().end(), style.reset)
              << Printable(chunk.text()) << "\n\n";
}

int GetChunks(const Options& options, const Console& console) {
  const auto stub = ConnectRetriever(options.common);
  pb::GetChunksRequest request;
  request.set_collection(options.common.collection);
  request.set_document_id(options.id);
  request.set_max_chunks(kPageChunks);
  pb::GetChunksResponse response;
  uint32_t next = 0;
  do {
    request.set_first_chunk(next);
    Call call(options.common.timeout_s);
    const grpc::Status status = stub->GetChunks(call.context(), request, &response);
    if (!status.ok()) return ReportFailure(console, RetrieverPeer(options.common), status);
    for (const pb::Chunk& chunk : response.chunks()) PrintChunk(chunk, options, console);
    next += static_cast<uint32_t>(response.chunks_size());
  } while (response.chunks_size() > 0 && next < response.chunk_count());
  return kOk;
}

}  // namespace

void AddGetCommand(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("get", "Print one document, or its chunks");
  command->footer(kFooter);
  command->add_option("id", options->id, "The document's id")->type_name("ID")->required();
  command->add_flag("--chunks", options->chunks, "Its chunks instead");
  AddCommonOptions(*command, options->common);
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return options->chunks ? GetChunks(*options, invocation.console) : GetDocument(*options, invocation.console);
    };
  });
}

}  // namespace retro::cli
