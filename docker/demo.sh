#!/bin/sh
# The demo from photographs to answers: data, model, index, figures, service. Each stage is skipped where its result is there,
# and goes on where it was interrupted. Needs the programs of this project in the Python on PATH.
#
#   FC7_DEMO_DATA  groceries (default), imagenette, cifar10, or a folder of photographs with a subfolder for each class
#   FC7_HOME       folder for everything that is made (default: var)
#   FC7_METRIC     what is near: euclidean (default), or cosine, by the angle between features
set -eu

# What ends this script ends the program that it runs too, which has yet to save where it stopped
trap 'exit 130' INT
trap 'exit 143' TERM

data=${FC7_DEMO_DATA:-groceries}
home=${FC7_HOME:-var}
case $data in
groceries | imagenette | cifar10)
    [ "$data" = groceries ] || home=$home/$data
    images=$home/images
    ;;
*)
    [ -d "$data" ] || { echo "demo: DATA must be groceries, imagenette, cifar10 or a folder, got '$data'" >&2; exit 2; }
    images=$(CDPATH= cd -- "$data" && pwd)
    home=$home/$(basename "$images")-$(printf %s "$images" | cksum | cut -d ' ' -f 1)
    ;;
esac
mkdir -p "$home"
export FC7_DATA="$images" FC7_MODEL="$home/model" FC7_INDEX="$home/index"

if [ ! -d "$images" ]; then
    echo "== 1/7 photographs: $data"
    python -m training.datasets --data "$data" --out "$images"
fi
if [ ! -f "$FC7_MODEL/model.json" ]; then
    echo "== 2/7 training the two-GPU AlexNet on $images"
    # Departures from the paper's recipe, for a data set a thousand times smaller than its own: see "The demo's recipe" in training/README.md
    python -m training.train --out "$FC7_MODEL" --preset quick ${FC7_DEMO_EPOCHS:+--epochs "$FC7_DEMO_EPOCHS"}
fi
if [ ! -e "$FC7_INDEX/current" ]; then
    echo "== 3/7 index, unit atlas and map of the training photographs"
    # openTSNE has no wheel for Linux on ARM
    if python -c 'import openTSNE' 2>/dev/null; then map=--map; else map=--no-map; fi
    python -m indexer.build --part train --atlas "$map"
fi
if [ ! -f "$FC7_INDEX/duplicates.json" ]; then
    echo "== 4/7 near-duplicates among them"
    python -m indexer.duplicates
fi
if [ ! -f "$FC7_INDEX/evaluation.json" ]; then
    echo "== 5/7 figures on photographs that were neither trained on nor indexed"
    { python -m training.evaluate && python -m indexer.evaluate --untrained; } || echo "demo: no figures, for the reason above" >&2
fi
if [ ! -f "$FC7_INDEX/current/calibration.json" ]; then
    echo "== 6/7 what distances mean, by the same photographs; no ranking changes"
    python -m indexer.calibrate || echo "demo: no calibration, for the reason above" >&2
fi
echo "== 7/7 service; model and index in $home"
exec python -m service "$@"
