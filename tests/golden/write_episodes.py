"""Play three short episodes by text and write down all that was said and paid.

``python tests/golden/write_episodes.py`` writes the transcripts beside this file; a change of a prompt,
a rule, a sampling or a reward then shows as a readable difference.
"""

from itertools import groupby
from pathlib import Path

from videogym import TextActions, VideoQAEnv
from videogym.grammars import FramePart, Message

FOLDER = Path(__file__).parent
SOURCE = "procedural:brief_event?level=0&duration_s=60&count=1&split=test"


def video_mtr(env: TextActions) -> list[str]:
    """A look at the wrong place, an unreadable output, the right answer on the last turn."""
    return [
        "<think>Maybe early.</think><retrieve>3,20</retrieve>",
        "<think>Hm.</think> B",
        f"<think>Now.</think><answer>{env.unwrapped.state.task.answer}</answer>",
    ]


def longvt(env: TextActions) -> list[str]:
    """A crop past the end, two calls at once of which one is good, the right answer."""
    grammar, state = env.grammar, env.unwrapped.state
    call = grammar.tools(state.rules)[0]["function"]["name"]
    path = env.messages[1].text.split()[-1]

    def crop(start_s: float, end_s: float) -> str:
        arguments = f'{{"video_path": "{path}", "start_time": {start_s}, "end_time": {end_s}}}'
        return f'<tool_call>{{"name": "{call}", "arguments": {arguments}}}</tool_call>'

    evidence = (state.task.evidence or ())[0]
    return [
        f"<think>Far.</think>{crop(50, 70)}",
        f"<think>Two.</think>{crop(evidence.start_s, evidence.end_s)}{crop(9, 3)}",
        f"<think>Seen.</think><answer>{state.task.answer}</answer>",
    ]


def default(env: TextActions) -> list[str]:
    """A look at part of the evidence inside a region, the same look again, a wrong answer."""
    evidence = (env.unwrapped.state.task.evidence or ())[0]
    arguments = (
        f'{{"start_s": {evidence.start_s}, "end_s": {evidence.end_s + 2}, "region": [0.2, 0.2, 0.8, 0.8]}}'
    )
    look = f'<think>There.</think><tool_call>{{"name": "crop", "arguments": {arguments}}}</tool_call>'
    wrong = next(letter for letter in "AB" if letter != env.unwrapped.state.task.answer)
    return [look, look, f'<tool_call>{{"name": "answer", "arguments": {{"text": "{wrong}"}}}}</tool_call>']


EPISODES = {
    "video_mtr_paper": ("VIDEO_MTR/paper", video_mtr),
    "longvt_code": ("LONGVT/code", longvt),
    "default": ("DEFAULT", default),
}


def transcript(name: str) -> str:
    """All messages of an episode, with what each turn paid after its output."""
    recipe, outputs_of = EPISODES[name]
    env = TextActions(VideoQAEnv(SOURCE, recipe))
    env.reset(seed=0)
    payments = []
    for output in outputs_of(env):
        _, reward, _, _, info = env.step(output)
        terms = ", ".join(
            f"{k} {v:+.4f}" for k, v in info["reward_terms"].items() if info["reward_present"][k]
        )
        payments.append(f"({terms or 'nothing due'}; reward {reward:+.4f}; {info['ending'] or 'running'})")
    lines = [f"{recipe}, {env.unwrapped.state.task.task_id}"]
    paid = iter(payments)
    for message in env.messages:
        lines += [f"\n--- {message.role}", shown(message)]
        if message.role == "assistant":
            lines.append(next(paid))
    env.close()
    return "\n".join(lines) + "\n"


def shown(message: Message) -> str:
    """Text as it is; frames in a row as their number and their first and last time."""
    pieces = []
    for is_frame, parts in groupby(message.parts, lambda part: isinstance(part, FramePart)):
        group = list(parts)
        if is_frame and len(group) == 1:
            pieces.append(f"[frame at {group[0].time_s:.3f} s]")
        elif is_frame:
            pieces.append(f"[{len(group)} frames, {group[0].time_s:.3f} to {group[-1].time_s:.3f} s]")
        else:
            pieces.append("".join(part.text for part in group))
    return "".join(pieces)


if __name__ == "__main__":
    for episode in EPISODES:
        (FOLDER / f"{episode}.txt").write_text(transcript(episode), encoding="utf-8")
