// retro-train prepare: the command line.
#include <algorithm>
#include <memory>
#include <thread>

#include "trainer/command.h"
#include "trainer/prepare.h"

namespace retro {

TrainCommand AddPrepareCommand(CLI::App& program) {
  const auto options = std::make_shared<PrepareOptions>();
  options->tokens.threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  CLI::App* app = program.add_subcommand(
      "prepare", "Documents to token file, chunk table and the nearest neighbours of every chunk; goes on if killed");
  CLI::Option* tokenizer = app->add_option("--tokenizer", options->tokens.tokenizer, "SentencePiece *.model");
  app->add_option(
         "--documents", options->tokens.documents,
         "Files of documents: .jsonl, .jsonl.gz or .jsonl.zst; without them --out holds the documents already, "
         "as retro-build training-data made it of a store, and neighbours are found by the vectors there")
      ->needs(tokenizer);
  app->add_option("--out", options->tokens.out, "The folder to make")->required();
  app->add_option("--chunk-length", options->tokens.chunk_length, "Tokens a chunk")
      ->check(CLI::Range(4, 65536))
      ->capture_default_str();
  app->add_option("--leave-out-near-duplicates-of", options->tokens.leave_out_near_duplicates_of,
                  "A file of documents: what repeats them is left out");
  app->add_option("--near-duplicate-share", options->tokens.near_duplicate_share,
                  "Least share of 13-word shingles that makes a document a repetition")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app->add_option("--threads", options->tokens.threads, "Threads that tokenise")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  CLI::Option* embedder =
      app->add_option("--embedder", options->embedder, "Folder of the BERT that embeds the chunks")->needs(tokenizer);
  app->add_option("--embedder-fingerprint", options->embedder_fingerprint,
                  "Fingerprint (hex) of the embedder that --embedder is a copy of in another number format");
  app->add_option("--device", options->device, "cpu, cuda or cuda:N, for embedder and search")->capture_default_str();
  app->add_option("--k", options->k, "Neighbours a chunk")->check(CLI::Range(1, 1024))->capture_default_str();
  app->add_option("--database", options->databases,
                  "Prepared folders to find the neighbours in, --out itself where it is one; default: --out alone");
  app->add_option("--neighbours-from", options->neighbours_from,
                  "Folder with neighbours.json and neighbours.bin to take over instead of searching")
      ->excludes(embedder);
  return {app, [options] { return Prepare(*options, ShowProgress); }};
}

}  // namespace retro
