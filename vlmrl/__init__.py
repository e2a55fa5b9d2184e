"""vlmrl: rewards in words for embodied agents.

`import vlmrl` registers the suite's environments with Gymnasium (`gym.make("vlmrl/Humanoid-v0")`) and imports nothing
heavy: torch, MuJoCo, open_clip and OpenCV load when they are first used.
"""

import gymnasium as gym

__version__ = "0.1.0"

gym.register("vlmrl/Ant-v0", entry_point="vlmrl.envs.ant:Ant", max_episode_steps=1000)
gym.register("vlmrl/BabyAI-v0", entry_point="vlmrl.envs.minigrid:BabyAI")  # its levels have limits of their own
gym.register("vlmrl/CartPole-v0", entry_point="vlmrl.envs.cartpole:CartPole", max_episode_steps=200)
gym.register("vlmrl/Crafter-v0", entry_point="vlmrl.envs.crafter:Crafter", max_episode_steps=10000)
gym.register("vlmrl/DrawerOpen-v0", entry_point="vlmrl.envs.metaworld:DrawerOpen", max_episode_steps=500)
gym.register("vlmrl/HalfCheetah-v0", entry_point="vlmrl.envs.halfcheetah:HalfCheetah", max_episode_steps=1000)
gym.register("vlmrl/Hopper-v0", entry_point="vlmrl.envs.hopper:Hopper", max_episode_steps=1000)
gym.register("vlmrl/Humanoid-v0", entry_point="vlmrl.envs.humanoid:Humanoid", max_episode_steps=100)
gym.register("vlmrl/Kitchen-v0", entry_point="vlmrl.envs.kitchen:Kitchen", max_episode_steps=280)
gym.register("vlmrl/MineDojo-v0", entry_point="vlmrl.envs.minedojo:MineDojo", max_episode_steps=500)
gym.register("vlmrl/MiniGrid-v0", entry_point="vlmrl.envs.minigrid:MiniGrid")
gym.register("vlmrl/MiniHack-v0", entry_point="vlmrl.envs.minihack:MiniHack")
gym.register("vlmrl/MountainCar-v0", entry_point="vlmrl.envs.mountaincar:MountainCar", max_episode_steps=200)
gym.register("vlmrl/NetHack-v0", entry_point="vlmrl.envs.nethack:NetHack", max_episode_steps=5000)
gym.register("vlmrl/Soccer-v0", entry_point="vlmrl.envs.metaworld:Soccer", max_episode_steps=500)
gym.register("vlmrl/SweepInto-v0", entry_point="vlmrl.envs.metaworld:SweepInto", max_episode_steps=500)
gym.register("vlmrl/Walker2d-v0", entry_point="vlmrl.envs.walker2d:Walker2d", max_episode_steps=1000)
