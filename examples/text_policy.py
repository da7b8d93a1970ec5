"""A text policy: read the prompt, write an action in the grammar of LongVT, read the reply."""

import gymnasium as gym

import videogym

env = videogym.TextActions(gym.make("videogym/LongVT-v0"))
observation, info = env.reset(seed=0)
print(observation["prompt"][-600:])

call = '{"name": "crop_video", "arguments": {"start_time": 30, "end_time": 40}}'
for text in (
    "Let me look.",  # not in the grammar: a turn is spent and the reply says why
    f"<think>The event may be at half a minute.</think><tool_call>{call}</tool_call>",
    "<think>I have seen enough.</think><answer>A</answer>",
):
    observation, reward, terminated, truncated, info = env.step(text)
    print(f"> {text}\n{observation['prompt']}\nreward {reward:.3f}  {info['reward_terms']}")
env.close()
