# To be sourced by benchmarks of a store. bench_store VECTORS makes, once, the store VECTORS/store of what bench_vectors printed;
# PART_SECONDS (an hour) bounds how long one call works on it: it returns 3 then, and the next one goes on.
. tests/bench/vectors/make.sh
bench_store() {
  "$RETRO_BUILD/bench/store_fill" "$1" "$1/store" common/tokenizer/retro-16k.model "${models[0]}" "${PART_SECONDS:-3600}" >&2
}
