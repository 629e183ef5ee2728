#!/usr/bin/env bash
# pycuda without a GPU or CUDA toolkit: built against the stand-in driver and the headers that torch's packages bring.
#   tools/build_pycuda.sh FOLDER    then KD_EDGE_PYCUDA=FOLDER KD_EDGE_REQUIRE_CUDA=1 make test
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "$1")
bin=$PWD/.venv/bin
toolkit=$("$bin/python" -c 'import nvidia.cu13; print(next(iter(nvidia.cu13.__path__)))')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

gcc -shared -fPIC -O2 -Wl,-soname,libcuda.so.1 -o "$work/libcuda.so.1" tests/engines/fakecuda.c
ln -s libcuda.so.1 "$work/libcuda.so"
mkdir "$work/include"
cat > "$work/include/cudaProfiler.h" <<'H' # the one header that torch's packages lack
#include <cuda.h>
typedef enum CUoutput_mode_enum { CU_OUT_KEY_VALUE_PAIR = 0, CU_OUT_CSV = 1 } CUoutput_mode;
extern "C" {
CUresult CUDAAPI cuProfilerInitialize(const char *configuration, const char *output, CUoutput_mode mode);
CUresult CUDAAPI cuProfilerStart(void);
CUresult CUDAAPI cuProfilerStop(void);
}
H
"$bin/pip" download --quiet --no-deps --no-binary :all: --no-build-isolation --dest "$work" 'pycuda==2026.1' 2> "$work/log" ||
    { tail -5 "$work/log"; exit 1; }
tar -xzf "$work"/pycuda-*.tar.gz -C "$work"
cat > "$work/pycuda-2026.1/siteconf.py" <<P
CUDA_ENABLE_CURAND = CUDA_ENABLE_GL = False
CUDADRV_LIB_DIR = ["$work"]
CUDADRV_LIBNAME = ["cuda"]
CUDA_INC_DIR = ["$work/include", "$toolkit/include"]
CUDA_ROOT = "$toolkit"
P
"$bin/pip" wheel --quiet --no-deps --wheel-dir "$work" "$work/pycuda-2026.1" > "$work/log" 2>&1 ||
    { tail -20 "$work/log"; exit 1; }
"$bin/pip" install --quiet --target "$target" "$work"/pycuda-*.whl
