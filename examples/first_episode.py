"""One episode, ten lines: look into the middle of a long video, then answer."""

import gymnasium as gym

import videogym

env = gym.make("videogym/VideoQA-v0", observe="pixels")
observation, info = env.reset(seed=0)
print(observation["question"], observation["options"].replace("\n", "  "))

middle_s = float(observation["duration_s"][0]) / 2
observation, reward, terminated, truncated, info = env.step(videogym.Crop(middle_s, middle_s + 10))
frames = int(observation["clip_mask"].sum())
print("saw", frames, "frames, the first at", observation["clip_times_s"][0], "s")

observation, reward, terminated, truncated, info = env.step(videogym.Answer("A"))
print("right" if info["is_success"] else "wrong", reward, info["reward_terms"])
env.close()
