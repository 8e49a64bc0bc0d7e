# Sourced by what packs programs for another machine.

# Libraries that FOLDER's programs need and a machine with torch may lack: all but torch's own and the C and C++ run time.
pack_libraries() { # pack_libraries FOLDER, with bin/ and lib/
  ldd "$1"/bin/* | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -vE '/lib(torch.*|c10.*|cud.*|cupti.*|nv.*|gomp.*|c|m|dl|rt|pthread|stdc\+\+|gcc_s)\.so' | xargs -r cp -L -t "$1/lib"
}
