set -e
python "$@"
