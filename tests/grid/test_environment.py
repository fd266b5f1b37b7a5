"""What a cell's process is told by its environment."""

from pxframe.grid.environment import inherited, sent, settings


def test_threads_are_stated_and_gpus_hidden_from_what_needs_none():
    assert settings(3, gpu=True) == {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}
    assert settings(1, gpu=False)["CUDA_VISIBLE_DEVICES"] == ""


def test_a_launcher_s_words_are_not_for_cells():
    launcher = dict.fromkeys(("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"))
    assert inherited({**launcher, "PATH": "/bin", "PXFRAME_DATA": "/d"}) == {"PATH": "/bin", "PXFRAME_DATA": "/d"}


def test_another_machine_keeps_its_own_paths_and_devices():
    environ = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "3", "PXFRAME_DATA": "/d", "PXFRAME_PLUGINS": "px"}
    assert sent(environ) == {"PXFRAME_DATA": "/d", "PXFRAME_PLUGINS": "px"}
