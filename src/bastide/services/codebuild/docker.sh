#!/bin/sh
# What buildspecs call docker, by buildah: its images lie in the build's own folder, its RUN commands run in the build's
# sandbox, in a root of their own.
fail() { echo "docker: $*" >&2; exit 1; }
case "${BASTIDE_PRIVILEGED:-}" in
  1) ;;
  *) fail "Cannot connect to the Docker daemon. Is the docker daemon running? Images are built by projects with privilegedMode." ;;
esac
word="${1:-}"
[ $# -gt 0 ] && shift
case "$word" in
  image|builder)
    word="${1:-}"
    [ $# -gt 0 ] && shift
    case "$word" in ls) word=images ;; rm) word=rmi ;; esac ;;
  buildx)
    [ "${1:-}" = build ] || fail "buildx ${1:-} is not supported by Bastide; there is buildx build"
    word=build
    shift ;;
esac
case "$word" in
  build)
    for one; do
      shift
      case "$one" in
        --load|--progress=*|--provenance=*|--sbom=*) ;;
        --push|--secret*|--ssh*|--output*|--cache-to*) fail "build $one is not supported by Bastide" ;;
        *) set -- "$@" "$one" ;;
      esac
    done
    exec buildah bud --format docker --isolation chroot --pull=true "$@" ;;
  push|pull|tag|images|rmi|login|logout) exec buildah "$word" "$@" ;;
  inspect) exec buildah inspect --type image "$@" ;;
  version|--version|-v|info) echo "docker of Bastide, by $(buildah --version)" ;;
  "") fail "a command is needed: build, push, pull, tag, images, rmi, login, logout, inspect" ;;
  *) fail "$word is not supported by Bastide; there are build, push, pull, tag, images, rmi, login, logout, inspect" ;;
esac
