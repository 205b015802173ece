"""`import modeling_gemoclap` imports neither torch nor transformers, and still registers with the auto classes."""

import subprocess
import sys

import pytest
from conftest import ROOT

LOAD = f"model = AutoModel.from_pretrained({str(ROOT / 'checkpoints/gemoclap-compact')!r}); " + (
    "assert type(model).__module__ == 'modeling_gemoclap.modeling_gemoclap', type(model)"
)
REGISTRY = "from transformers.pipelines import PIPELINE_REGISTRY"
REGISTERED = "assert 'zero-shot-emotion-recognition' in PIPELINE_REGISTRY.get_supported_tasks()"
EXTRAS = ("accelerate", "datasets", "evaluate", "jinja2", "matplotlib", "pandas", "peft", "pyarrow")
FOLDER = repr(str(ROOT / "checkpoints/gemoclap-compact"))
PROGRAMS = {
    **{
        f"{name} alone": f"import modeling_gemoclap; from transformers import {name}; {name}.from_pretrained({FOLDER})"
        for name in ("AutoConfig", "AutoFeatureExtractor", "AutoProcessor")
    },
    "package before transformers": f"import modeling_gemoclap; from transformers import AutoModel; {LOAD}",
    "transformers before package": f"from transformers import AutoModel; import modeling_gemoclap; {LOAD}",
    "a module of the package": "import modeling_gemoclap.configuration_gemoclap; from transformers import AutoModel; "
    + LOAD,
    "auto classes within another module": "import modeling_gemoclap; from transformers import Trainer; "
    f"from transformers import AutoConfig; AutoConfig.from_pretrained({FOLDER})",
    "a public name": f"from modeling_gemoclap import GEmoClapConfig; from transformers import AutoModel; {LOAD}",
    "pipeline after": f"import modeling_gemoclap; {REGISTRY}; {REGISTERED}",
    "pipeline before": f"{REGISTRY}; import modeling_gemoclap; {REGISTERED}",
    "no library": "import modeling_gemoclap, sys; assert not {'torch', 'transformers'} & sys.modules.keys()",
    "prediction without the extras": f"import sys; sys.modules.update(dict.fromkeys({EXTRAS})); "
    "from modeling_gemoclap import GEmoClap; GEmoClap.from_pretrained('compact').encode_text('an angry voice'); "
    "import modeling_gemoclap.inference.files, modeling_gemoclap.inference.embeddings, "
    "modeling_gemoclap.inference.information, modeling_gemoclap.inference.recordings",
    "every public name": "import modeling_gemoclap; from modeling_gemoclap import *; "
    "assert {*modeling_gemoclap.__all__} <= {*dir(modeling_gemoclap)} & {*globals()}",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_registration_does_not_depend_on_the_order_of_imports(name):
    done = subprocess.run([sys.executable, "-c", PROGRAMS[name]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_unknown_name():
    import modeling_gemoclap

    with pytest.raises(AttributeError, match="has no attribute 'GEmoClapModle'"):
        modeling_gemoclap.GEmoClapModle  # noqa: B018
