#!/bin/sh
# llama_cpp.sh CHECKPOINT GGUF: builds llama.cpp's server as build/llama.cpp/llama-server, from the sources that the
# source distribution of llama-cpp-python holds, and writes the checkpoint as it reads it, in bf16. What is there
# already stays. Takes a C++ compiler and cmake, and about a quarter of an hour on two cores.
set -eu
version=0.3.36
checkpoint=$1
gguf=$2
python=$PWD/${PYTHON:-.venv/bin/python}
place=$PWD/build/llama.cpp
source=$place/llama_cpp_python-$version/vendor/llama.cpp
mkdir -p "$place"
if [ ! -d "$source" ]; then
    "$python" -m pip download --no-deps --no-binary llama-cpp-python --dest "$place" "llama-cpp-python==$version"
    tar -xzf "$place/llama_cpp_python-$version.tar.gz" -C "$place"
fi
if [ ! -x "$place/llama-server" ]; then
    cmake -S "$source" -B "$place/made" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF \
        -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF
    cmake --build "$place/made" --target llama-server --parallel "$(nproc)"
    cp "$place/made/bin/llama-server" "$place/llama-server"
fi
[ -f "$gguf" ] || "$python" "$source/convert_hf_to_gguf.py" "$checkpoint" --outtype bf16 --outfile "$gguf"
