#!/usr/bin/env bash
# What each program is made of: retro_core's own program carries no gRPC, RocksDB or FAISS, so that it can be taken to another machine;
# the shard and the command line carry no torch.
#   tests/library_cut_test.sh FOLDER-OF-PROGRAMS
set -euo pipefail  # so no `grep -q` behind a pipe: who still writes into it ends with SIGPIPE
bin=$1
failed=0
must_lack() { # must_lack PROGRAM WORD...: neither a library nor a symbol of that name
  local program=$1 word; shift
  for word in "$@"; do
    if readelf -d "$bin/$program" | grep NEEDED | grep -i "$word" >/dev/null; then echo "$program links a library named like $word"; failed=1; fi
    if nm -C "$bin/$program" 2>/dev/null | grep -E " [TtVvWw] (non-virtual thunk to )?$word::" >/dev/null; then echo "$program holds symbols of $word::"; failed=1; fi
  done
}
must_have() { # must_have PROGRAM WORD: else the check above would prove nothing
  readelf -d "$bin/$1" | grep NEEDED | grep -i "$2" >/dev/null || nm -C "$bin/$1" | grep -E " [TtVvWw] $2::" >/dev/null || { echo "$1 lacks $2: is this test still right?"; failed=1; }
}
must_lack retro-model grpc rocksdb faiss
must_lack retro-train grpc protobuf rocksdb faiss mpi nccl
must_lack retro-eval grpc protobuf rocksdb faiss
must_lack retro-shard torch c10
must_lack retro torch c10 rocksdb faiss
must_have retro grpc
must_have retro-model torch
must_have retro-train torch
must_have retro-eval torch
must_have retro-shard rocksdb
must_have retro-shard grpc
exit $failed
