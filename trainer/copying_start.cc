#include "trainer/copying_start.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/torch/torch_status.h"
#include "generator_service/model/attention.h"
#include "generator_service/model/weights.h"
#include "trainer/batch.h"
#include "trainer/batch_forward.h"

namespace retro {
namespace {

// The sample: so many tokens, or so many for each dimension, of which the regression has an unknown each.
constexpr int64_t kTokens = 12'288;
constexpr int64_t kTokensPerWidth = 16;
constexpr double kRidge = 0.004;         // of the mean square of what is regressed from
constexpr double kVarianceFloor = 1e-3;  // of the mean variance: what hardly varies is not blown up to unit variance
constexpr double kMarkSize = 2.5;        // of a mark's component, in root mean squares of the embedding
constexpr double kRandomShare = 0.1;  // of RandomWeights, in matrices that are set: what is random stays in the noise
// Differences of logits. Larger ones of the last two gain more where neighbours repeat the text, and cost more where
// they do not.
constexpr double kPreviousLogit = 9;  // of the token before over any other
constexpr double kMatchLogit = 14;    // of a token like the asking one over one of no likeness
constexpr double kCopyLogit = 5;      // of the token that all CCA layers copy over the others, in READ

at::Tensor Exact(const at::Tensor& tensor) { return tensor.to(at::kDouble); }

// What best gives the targets as a linear function of the inputs, by their mean products: [inputs, targets].
at::Tensor Ridge(const at::Tensor& gram, const at::Tensor& cross) {
  const at::Tensor ridge = gram.diagonal().mean() * kRidge * at::eye(gram.size(0), gram.options());
  return at::linalg_solve(gram + ridge, cross);
}

class CopyingStart {
 public:
  CopyingStart(const ModelConfig& config, const DataSet& text, WeightMap& weights)
      : config_(config),
        text_(text),
        weights_(weights),
        matched_(std::min({config.head_size, config.encoder_heads * config.encoder_head_size, config.encoder_width / 2,
                           config.width / 2})),
        copied_(std::min({config.encoder_width - matched_, config.width, config.heads * config.head_size})) {}

  absl::Status Plant(const CopyingStartOptions& options) {
    const at::NoGradGuard no_grad;
    RETRO_RETURN_IF_ERROR(Sample(options));
    AnalyseEmbedding();
    RETRO_RETURN_IF_ERROR(Listen());
    PlantEncoder();
    return PlantCca();
  }

 private:
  // What a CCA layer's queries are made of, normed: mean products with themselves and with the whitened own token.
  struct Heard {
    at::Tensor gram, cross;
  };

  absl::Status Sample(const CopyingStartOptions& options) {
    RETRO_RETURN_IF_ERROR(CheckWindowLength(config_, options.length));
    BatchMaker maker(text_, /*neighbours=*/nullptr, config_,
                     {.windows = 1, .length = options.length, .seed = options.seed, .offset_share = 0});
    if (maker.windows_per_epoch() == 0) {
      return absl::InvalidArgumentError(StrCat(text_.folder(), " holds less than one window of text"));
    }
    const int64_t windows = std::max(kTokens, kTokensPerWidth * config_.width) / options.length + 1;
    const auto count = std::min(static_cast<uint64_t>(windows), maker.windows_per_epoch());
    for (uint64_t i = 0; i < count; ++i) windows_.push_back(maker.Make(i));
    return absl::OkStatus();
  }

  // The numbers of a window's rows that are no pad.
  at::Tensor TextRows(const Batch& window) const {
    return window.tokens.flatten().ne(text_.header().pad_id).nonzero().squeeze(1);
  }

  // Principal components of the embedding, each token counted as often as it occurs.
  void AnalyseEmbedding() {
    at::Tensor counts = at::zeros({config_.vocabulary}, at::kLong);
    for (const Batch& window : windows_) {
      counts += at::bincount(window.tokens.flatten().index_select(0, TextRows(window)), {}, config_.vocabulary);
    }
    seen_ = counts.nonzero().squeeze(1);
    shares_ = Exact(counts.index_select(0, seen_));
    shares_ /= shares_.sum();
    const at::Tensor rows = Exact(weights_.at("decoder.embedding").index_select(0, seen_));
    mean_ = at::matmul(shares_, rows);
    centred_ = rows - mean_;
    const auto [variances, directions] =
        at::linalg_eigh(at::matmul(centred_.t(), centred_ * shares_.unsqueeze(1)));  // rising
    directions_ = directions.flip(1);
    const at::Tensor largest = variances.flip(0).narrow(0, 0, matched_).clamp_min(0);
    whitening_ = directions_.narrow(1, 0, matched_) / (largest + variances.mean() * kVarianceFloor).sqrt();
    size_ = std::sqrt(at::matmul(shares_, rows.square().mean(1)).item<double>());
  }

  // What the decoder's activations before each CCA say of their own token.
  absl::Status Listen() {
    RETRO_ASSIGN_OR_RETURN(const ModelWeights bound, BindWeights(config_, weights_));
    const at::Tensor embedding = weights_.at("decoder.embedding");
    const auto options = at::TensorOptions().dtype(at::kDouble);
    heard_.assign(config_.cca_layers.size(), {.gram = at::zeros({config_.width, config_.width}, options),
                                              .cross = at::zeros({config_.width, matched_}, options)});
    double rows_heard = 0;
    double squares = 0;
    for (const Batch& window : windows_) {
      std::vector<at::Tensor> streams;
      BatchForward(bound, config_, window, {.streams = &streams});
      const at::Tensor rows = TextRows(window);
      const at::Tensor tokens = window.tokens.flatten().index_select(0, rows);
      const at::Tensor own = at::matmul(Exact(embedding.index_select(0, tokens)) - mean_, whitening_);
      for (size_t i = 0; i < heard_.size(); ++i) {
        const int64_t layer = config_.cca_layers[i] - 1;
        const at::Tensor stream = streams[layer].flatten(0, 1).index_select(0, rows);
        const at::Tensor x = Exact(bound.layers[layer].cca->norm(stream));
        heard_[i].gram = heard_[i].gram + at::matmul(x.t(), x);
        heard_[i].cross = heard_[i].cross + at::matmul(x.t(), own);
      }
      rows_heard += static_cast<double>(rows.size(0));
      squares += Exact(streams.back().flatten(0, 1).index_select(0, rows)).square().mean(1).sum().item<double>();
    }
    for (Heard& heard : heard_) {
      heard.gram = heard.gram / rows_heard;
      heard.cross = heard.cross / rows_heard;
    }
    last_size_ = std::sqrt(squares / rows_heard);
    return absl::OkStatus();
  }

  void Set(const std::string& name, const at::Tensor& value) { weights_.at(name) = value.to(at::kFloat).contiguous(); }
  at::Tensor Weakened(const std::string& name) const { return Exact(weights_.at(name)) * kRandomShare; }

  // Where the components lie in the encoder: columns [d', d'] by falling variance. An encoder with an embedding of its
  // own has them as its dimensions.
  at::Tensor EncoderBasis() {
    if (config_.shared_embedding) return directions_;
    const int64_t kept = std::min(config_.width, config_.encoder_width);
    const at::Tensor embedding = Exact(weights_.at("decoder.embedding"));
    const at::Tensor components = at::matmul(embedding, directions_.narrow(1, 0, kept));
    Set("encoder.embedding", at::constant_pad_nd(components, {0, config_.encoder_width - kept}));
    return at::eye(config_.encoder_width, at::kDouble);
  }

  void PlantEncoder() {
    basis_ = EncoderBasis();
    for (auto& [name, weight] : weights_) {
      const bool adds = name.ends_with(".output") || name.ends_with(".down");
      if (name.starts_with("encoder.") && adds) weight = at::zeros_like(weight);
    }
    PlantPreviousToken();
    const std::string prefix = "encoder.1.attention.";
    const Norm norm = {config_.norm, config_.norm_eps, weights_.at(prefix + "norm"), Find(prefix + "norm_bias"),
                       Find(prefix + "norm_gate")};
    const std::string embedding = config_.shared_embedding ? "decoder.embedding" : "encoder.embedding";
    const at::Tensor rows = weights_.at(embedding).index_select(0, seen_);
    const at::Tensor x = Exact(norm(rows));
    const at::Tensor weighted = (x * shares_.unsqueeze(1)).t();
    const at::Tensor read = Ridge(at::matmul(weighted, x), at::matmul(weighted, at::matmul(centred_, whitening_)));
    at::Tensor value = Exact(weights_.at(prefix + "value"));
    value.narrow(0, 0, matched_).copy_(read.t());
    Set(prefix + "value", value);
    at::Tensor output = at::zeros_like(Exact(weights_.at(prefix + "output")));
    output.narrow(1, 0, matched_).copy_(MarkPlaces() * (kMarkSize * size_));
    Set(prefix + "output", output);
    if (!config_.encoder_final_norm) return;
    const double marks = kMarkSize * kMarkSize * static_cast<double>(matched_) / config_.encoder_width;
    Set("encoder.final_norm", at::full({config_.encoder_width}, size_ * std::sqrt(1 + marks), at::kDouble));
  }

  at::Tensor Find(const std::string& name) const {
    const auto found = weights_.find(name);
    return found == weights_.end() ? at::Tensor() : found->second;
  }

  at::Tensor MarkPlaces() const { return basis_.narrow(1, config_.encoder_width - matched_, matched_); }

  // Heads of the encoder's first layer: v and W_R of one dimension give every distance a logit that is largest for 1.
  void PlantPreviousToken() {
    const std::string prefix = "encoder.1.attention.";
    const int64_t largest = config_.neighbour_length - 1;
    const at::Tensor rows =
        SinusoidRows(largest, 2 * largest + 1, config_.encoder_width, at::TensorOptions().dtype(at::kDouble));
    const at::Tensor before = rows.select(0, largest - 1);
    const at::Tensor likeness = std::get<0>(at::matmul(rows, before).sort(0, /*descending=*/true));
    const double lead = (likeness[0] - likeness[1]).item<double>();
    const double size = config_.attention_scale ? std::sqrt(static_cast<double>(config_.encoder_head_size)) : 1.0;
    const double root = std::sqrt(kPreviousLogit * size / lead);
    at::Tensor position = Weakened(prefix + "position");
    at::Tensor bias = Exact(weights_.at(prefix + "position_bias")).clone();
    for (int64_t head = 0; head < config_.encoder_heads; ++head) {
      position.select(0, head * config_.encoder_head_size).copy_(before * root);
      bias.narrow(0, head * config_.encoder_head_size, 1).fill_(root);
    }
    Set(prefix + "position", position);
    Set(prefix + "position_bias", bias);
    Set(prefix + "query", Weakened(prefix + "query"));
    Set(prefix + "key", Weakened(prefix + "key"));
  }

  // How often CCA adds what it takes over, all layers together, so that a token copied for sure leads in READ.
  double Strength() const {
    const at::Tensor copied = at::matmul(centred_, directions_.narrow(1, 0, copied_)).square();  // [S, copied]
    if (!config_.final_norm) return kCopyLogit / at::matmul(shares_, copied.sum(1)).item<double>() / config_.gate;
    const at::Tensor gain = Exact(weights_.at("decoder.final_norm")).abs().mean();
    const at::Tensor rise = at::matmul(shares_, copied.sum(1)) * gain / last_size_;
    return kCopyLogit / rise.item<double>() / config_.gate;
  }

  absl::Status PlantCca() {
    const double strength = Strength();
    const auto layers = static_cast<double>(heard_.size());
    for (size_t i = 0; i < heard_.size(); ++i) {
      const at::Tensor query = Ridge(heard_[i].gram, heard_[i].cross);
      const double likeness = (query * heard_[i].cross).sum().item<double>();  // of a token's query and its own mark
      if (!(likeness > 0) || !std::isfinite(strength)) {
        return absl::InvalidArgumentError(
            StrCat(text_.folder(), ": nothing tells its tokens apart in the decoder: new weights can't copy"));
      }
      // Later layers know more of what is to come, and add more: 1, 2, 3 ... parts.
      const double part = static_cast<double>(i + 1) / (layers * (layers + 1) / 2);
      PlantCcaLayer(StrCat("decoder.", config_.cca_layers[i], ".cca."), query, likeness, strength * part);
    }
    return absl::OkStatus();
  }

  // Every head matches alike; what they copy is dealt out to them.
  void PlantCcaLayer(const std::string& prefix, const at::Tensor& query, double likeness, double strength) {
    const int64_t c = config_.head_size;
    const double size = config_.attention_scale ? std::sqrt(static_cast<double>(c)) : 1.0;
    const double root = std::sqrt(kMatchLogit * size / likeness);
    const int64_t groups = (copied_ + c - 1) / c;
    at::Tensor queries = Weakened(prefix + "query");
    at::Tensor keys = Weakened(prefix + "key");
    at::Tensor values = Weakened(prefix + "value");
    at::Tensor output = at::zeros_like(Exact(weights_.at(prefix + "output")));
    for (int64_t head = 0; head < config_.heads; ++head) {
      queries.narrow(0, head * c, matched_).copy_(query.t() * root);
      keys.narrow(0, head * c, matched_).copy_(MarkPlaces().t() * (root / (kMarkSize * size_)));
      const int64_t group = head % groups;
      const int64_t sharing = config_.heads / groups + (group < config_.heads % groups ? 1 : 0);
      const int64_t count = std::min(c, copied_ - group * c);
      values.narrow(0, head * c, count).copy_(basis_.narrow(1, group * c, count).t());
      output.narrow(1, head * c, count)
          .copy_(directions_.narrow(1, group * c, count) * (strength / static_cast<double>(sharing)));
    }
    Set(prefix + "query", queries);
    Set(prefix + "key", keys);
    Set(prefix + "value", values);
    Set(prefix + "output", output);
    Set(prefix + "position", Weakened(prefix + "position"));
  }

  const ModelConfig& config_;
  const DataSet& text_;
  WeightMap& weights_;
  const int64_t matched_;  // components that a mark holds
  const int64_t copied_;   // components that are taken over, the largest
  std::vector<Batch> windows_;
  at::Tensor seen_;        // [S]: the tokens that occur
  at::Tensor shares_;      // [S]: how often
  at::Tensor mean_;        // [d]: of the embedding
  at::Tensor centred_;     // [S, d]: the embedding without it
  at::Tensor directions_;  // [d, d]: principal ones, in columns by falling variance
  at::Tensor whitening_;   // [d, matched]: to the largest components, of unit variance
  at::Tensor basis_;       // [d', d']: see EncoderBasis
  double size_ = 0;        // root mean square of the embedding
  double last_size_ = 0;   // of what READ reads, before its norm
  std::vector<Heard> heard_;
};

}  // namespace

absl::Status CheckCanCopy(const ModelConfig& config) {
  RETRO_RETURN_IF_ERROR(CheckTrainable(config));
  const auto refuse = [](const char* what) {
    return absl::InvalidArgumentError(
        StrCat("new weights that copy need ", std::string_view(what), "; random ones do not"));
  };
  if (!config.position_biases) return refuse("'position_biases'");
  if (!config.tied_readout) return refuse("'tied_readout'");
  if (config.gate == 0) return refuse("a 'gate' other than 0");
  if (config.encoder_cca_residual_normed) return refuse("'encoder_cca_residual_normed' to be false");
  return absl::OkStatus();
}

absl::Status PlantCopying(const ModelConfig& config, const DataSet& text, const CopyingStartOptions& options,
                          std::map<std::string, at::Tensor>& weights) {
  RETRO_RETURN_IF_ERROR(CheckCanCopy(config));
  return CatchTorch([&] { return CopyingStart(config, text, weights).Plant(options); });
}

}  // namespace retro
