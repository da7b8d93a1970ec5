"""videogym as an environment of verifiers, which finds it by this module's name.

    export PYTHONPATH=examples/peers
    vf-eval videogym-verifiers -m MODEL --client.base-url http://127.0.0.1:8000/v1 -n 100 -r 4 --no-push

``--env.taskset.tasks``, ``--env.taskset.video-root`` and ``--env.taskset.recipe`` say what is played.

Needs ``pip install "videogym[verifiers]"`` in an environment of its own, see docs/peers.md.
"""

from videogym.verifiers import VerifiersEnv, VideoHarness, VideoTaskset

__all__ = ["VerifiersEnv", "VideoHarness", "VideoTaskset"]
