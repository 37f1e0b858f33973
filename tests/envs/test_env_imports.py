import subprocess
import sys


def test_importing_the_environments_registers_them_and_loads_neither_torch_nor_mujoco():
    program = (
        "import sys, gymnasium, dfplan.envs, dfplan.envs.reference\n"
        "assert 'maze2d-large-v1' in gymnasium.registry and 'multi2d-umaze-v1' in gymnasium.registry\n"
        "print([name for name in ('torch', 'mujoco', 'minari') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


def test_stepping_and_collecting_never_load_torch():
    program = (
        "import sys, gymnasium, dfplan.envs, dfplan.envs.collect, dfplan.envs.expert\n"
        "gymnasium.make('maze2d-umaze-v1').reset()\n"
        "print('mujoco' in sys.modules, 'torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "True False"
