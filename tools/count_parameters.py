"""Count the parameters of every timm backbone into training/models/parameters.json; to be run after timm was raised.

    python tools/count_parameters.py

Two and a half minutes on two cores.
"""

import json

import timm

from lensmith.core.progress import track
from lensmith.training.models.zoo import COUNTED, count_parameters

names = timm.list_models()
counted = {name: count_parameters(name) for name in track(names, "counting", len(names))}
COUNTED.write_text(json.dumps({"timm": timm.__version__, "parameters": counted}, indent=0) + "\n")
print(f"{len(counted)} backbones of timm {timm.__version__} → {COUNTED}")
