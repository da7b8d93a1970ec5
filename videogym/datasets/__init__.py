"""Where tasks come from: procedural families, task files and published data sets."""

from videogym.datasets.cg_bench import read_cg_bench
from videogym.datasets.charades_sta import read_charades_sta
from videogym.datasets.curation import evidence_share, video_mtr_keeps
from videogym.datasets.egoschema import read_egoschema
from videogym.datasets.loading import READERS, load_tasks
from videogym.datasets.longvideobench import read_longvideobench
from videogym.datasets.longvt import (
    Conversation,
    ImageConversation,
    read_longvt_images,
    read_longvt_rl,
    read_longvt_sft,
    read_longvt_traces,
)
from videogym.datasets.lvbench import read_lvbench
from videogym.datasets.mixture import Mixture
from videogym.datasets.mlvu import read_mlvu
from videogym.datasets.moments import judge_moments, moment_task
from videogym.datasets.nextgqa import read_nextgqa
from videogym.datasets.overlap import (
    Overlap,
    TrainedOnError,
    find_overlap,
    require_unseen,
    require_unseen_files,
)
from videogym.datasets.planted import PlantedTasks
from videogym.datasets.procedural import ProceduralTasks
from videogym.datasets.qvhighlights import read_qvhighlights, read_qvhighlights_choices
from videogym.datasets.subtitles import read_json_subtitles, read_srt, read_subtitles
from videogym.datasets.task_files import read_tasks, write_tasks
from videogym.datasets.tasks import (
    EvidenceError,
    TaskFileError,
    TaskList,
    Tasks,
    check_evidence,
    check_length,
    check_same_video,
)
from videogym.datasets.video_mme import read_video_mme
from videogym.datasets.video_mmmu import read_video_mmmu
from videogym.datasets.video_r1 import read_video_r1
from videogym.datasets.videos import VideoCheck, VideoProblem, check_videos, find_videos
from videogym.datasets.videosiah_eval import read_videosiah_eval

__all__ = [
    "READERS",
    "Conversation",
    "EvidenceError",
    "ImageConversation",
    "Mixture",
    "Overlap",
    "PlantedTasks",
    "ProceduralTasks",
    "TaskFileError",
    "TaskList",
    "Tasks",
    "TrainedOnError",
    "VideoCheck",
    "VideoProblem",
    "check_evidence",
    "check_length",
    "check_same_video",
    "check_videos",
    "evidence_share",
    "find_overlap",
    "find_videos",
    "judge_moments",
    "load_tasks",
    "moment_task",
    "read_cg_bench",
    "read_charades_sta",
    "read_egoschema",
    "read_json_subtitles",
    "read_longvideobench",
    "read_longvt_images",
    "read_longvt_rl",
    "read_longvt_sft",
    "read_longvt_traces",
    "read_lvbench",
    "read_mlvu",
    "read_nextgqa",
    "read_qvhighlights",
    "read_qvhighlights_choices",
    "read_srt",
    "read_subtitles",
    "read_tasks",
    "read_video_mme",
    "read_video_mmmu",
    "read_video_r1",
    "read_videosiah_eval",
    "require_unseen",
    "require_unseen_files",
    "video_mtr_keeps",
    "write_tasks",
]
