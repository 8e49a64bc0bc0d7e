# To be sourced, by what compares with PyTorch: lets Python import torch, from the wheel that we link, and peer.py of the benchmarks.
# torch in Python wants every library of CUDA to be there, though nothing of them is called here: those that are missing are stood in
# for by empty ones.
packages=("$RETRO_DEPS"/venv/lib/python3*/site-packages)
stubs=$RETRO_DEPS/torch-stubs
mkdir -p "$stubs"
for library in $(LD_LIBRARY_PATH=$stubs ldd "${packages[0]}"/torch/lib/*.so | sed -n 's/^\s*\(\S*\) => not found$/\1/p' | sort -u); do
  gcc -shared -Wl,-soname,"$library" -o "$stubs/$library" -x c /dev/null
done
export LD_LIBRARY_PATH=$stubs PYTHONPATH=${packages[0]}:$(dirname "${BASH_SOURCE[0]}")
