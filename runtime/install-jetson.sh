#!/usr/bin/env bash
# Installs fer-edge on a Jetson. Uses JetPack's own OpenCV, TensorRT and NumPy and never replaces them.
#
#   runtime/install-jetson.sh [--check] [--venv DIR] [--wheel FILE] [--jetpack 6|7] [--without-camera]
#
#   --check            report what is missing; install nothing
#   --venv DIR         the virtual environment to create or update (default: /opt/fer-edge)
#   --wheel FILE       the fer-edge wheel (default: the newest in dist/)
#   --jetpack 6|7      JetPack version, for containers, which cannot detect it
#   --without-camera   accept an OpenCV without GStreamer, which reads no camera pipeline
#
# Writes nothing outside DIR and changes no system package. Run it again to update DIR.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=${FER_EDGE_ROOT:-} # a stand-in for / in tests
venv=/opt/fer-edge
wheel=
jetpack=
check_only=false
gstreamer=YES
needed_mb=600

say() { printf '%-6s %s\n' "$1" "$2"; }
fail() {
    printf 'install-jetson: %s\n' "$*" >&2
    exit 1
}

while (($#)); do
    case $1 in
        --check) check_only=true ;;
        --without-camera) gstreamer=any ;;
        --venv | --wheel | --jetpack)
            (($# > 1)) || fail "$1 needs a value; see --help"
            declare "${1#--}=$2"
            shift
            ;;
        -h | --help)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
            exit 0
            ;;
        *) fail "unknown option $1; see --help" ;;
    esac
    shift
done
[[ $jetpack =~ ^[67]?$ ]] || fail "--jetpack: got $jetpack, expected 6 or 7"
[[ $venv == /* ]] || venv=$PWD/$venv

faults=0
good() { say ok "$1"; }
bad() { # WHAT CURE
    say FAULT "$1"
    say '' "  cure: $2"
    faults=$((faults + 1))
}

find_jetpack() {
    local release=$root/etc/nv_tegra_release major minor
    if [[ -n $jetpack ]]; then
        good "JetPack $jetpack, as stated"
        return
    fi
    if [[ ! -r $release ]]; then
        bad "no /etc/nv_tegra_release: this is no Jetson, or a container" "on a Jetson's container pass --jetpack 6 or 7"
        return
    fi
    # "# R36 (release), REVISION: 4.3, GCID: ..."
    major=$(sed -n '1s/^# R\([0-9]*\) .*/\1/p' "$release")
    minor=$(sed -n '1s/.*REVISION: \([0-9.]*\).*/\1/p' "$release")
    case $major in
        36) jetpack=6 ;;
        38 | 39) jetpack=7 ;;
        35 | 34 | 32)
            bad "Jetson Linux $major.$minor is JetPack 5 or older, with a Python older than 3.10" \
                "flash JetPack 6, or run the engines that 'fer-edge export BUNDLE --target jetpack5' prepares elsewhere"
            return
            ;;
        *)
            bad "Jetson Linux ${major:-?}.${minor:-?} is not known here" "pass --jetpack 6 or 7, whichever is nearer"
            return
            ;;
    esac
    good "Jetson Linux $major.$minor: JetPack $jetpack"
}

# Prints what a Python imports, one "name=value" per line, none for a missing module. Runs outside the working folder.
probe() { # PYTHON
    (cd / && "$1" - <<'PYTHON') || fail "$1 cannot run"
import importlib, re, sys

print("python=%d.%d" % sys.version_info[:2])
for name in ("numpy", "cv2", "tensorrt", "ensurepip"):
    try:
        module = importlib.import_module(name)
    except ImportError:
        continue
    print("%s=%s" % (name, getattr(module, "__version__", "yes")))
    print("%s_file=%s" % (name, getattr(module, "__file__", "")))
    if name == "cv2":
        found = re.search(r"GStreamer:\s+(YES|NO)", module.getBuildInformation())
        print("gstreamer=%s" % (found.group(1) if found else "NO"))
PYTHON
}

read_facts() { # NAME_OF_ARRAY PYTHON
    local -n facts=$1
    local line
    while IFS= read -r line; do
        # shellcheck disable=SC2034  # a name reference: the caller reads the array
        facts[${line%%=*}]=${line#*=}
    done < <(probe "$2")
}

check_module() { # NAME APT_PACKAGE
    local version=${system[$1]:-} file=${system[$1_file]:-}
    if [[ -z $version ]]; then
        bad "python3 cannot import $1" "sudo apt-get install $2"
    elif [[ $file == "$HOME"/.local/* ]]; then
        bad "$1 $version comes from $file, in front of JetPack's own" "python3 -m pip uninstall the package that owns it"
    else
        good "$1 $version, $file"
        return 0
    fi
    return 1
}

declare -A system=()
check_machine() {
    local machine parent free python_wanted
    machine=$(uname -m)
    if [[ $machine == aarch64 ]]; then
        good "$machine"
    else
        bad "this machine is $machine, a Jetson is aarch64" "on other machines: pip install 'fer-edge[cpu]'"
    fi
    find_jetpack
    if ! command -v python3 >/dev/null; then
        bad "there is no python3" "sudo apt-get install python3 python3-venv"
        return
    fi
    read_facts system python3
    if [[ -n $jetpack ]]; then
        python_wanted=$([[ $jetpack == 6 ]] && echo 3.10 || echo 3.12)
        if [[ ${system[python]:-} == "$python_wanted" ]]; then
            good "Python ${system[python]}"
        else
            bad "python3 is ${system[python]:-unknown}, JetPack $jetpack has $python_wanted and its modules are built for it" \
                "put /usr/bin in front in PATH and leave other environments (deactivate)"
        fi
    fi
    [[ -n ${system[ensurepip]:-} ]] || bad "python3 cannot make virtual environments" "sudo apt-get install python3-venv"
    check_module numpy python3-numpy || true
    if check_module cv2 "nvidia-opencv (or Ubuntu's: python3-opencv opencv-data)"; then
        [[ ${system[cv2]} == 4.* ]] ||
            bad "OpenCV ${system[cv2]} has no cascade detector, expected 4.x" "use JetPack's own: sudo apt-get install nvidia-opencv"
        [[ $gstreamer == any || ${system[gstreamer]} == YES ]] ||
            bad "this OpenCV has no GStreamer, so it reads no camera of the Jetson" \
                "remove what hides JetPack's own, or pass --without-camera"
    fi
    check_module tensorrt python3-libnvinfer || true
    parent=$venv
    while [[ ! -d $parent ]]; do parent=$(dirname "$parent"); done
    free=$(df -Pm "$parent" | awk 'NR == 2 {print $4}')
    if ((free >= needed_mb)); then
        good "$free MB free at $parent"
    else
        bad "$free MB free at $parent, expected $needed_mb" "free space, or choose another place with --venv"
    fi
    if command -v nvpmodel >/dev/null; then
        say note "power mode: $(nvpmodel -q 2>/dev/null | tr '\n' ' ')(measure in one mode, and record it: see README.md)"
    fi
}

choose_wheel() {
    if [[ -z $wheel ]]; then
        # shellcheck disable=SC2012  # by age; our own file names are plain
        wheel=$(ls -t "$here"/../dist/fer_edge-*.whl 2>/dev/null | head -n 1 || true)
        [[ -n $wheel ]] || fail "there is no wheel in dist/; build one (python -m build --wheel) or name one with --wheel"
    fi
    [[ -f $wheel ]] || fail "no wheel at $wheel"
}

# Writes the environment's pip.conf, so that later installations cannot replace JetPack's packages either.
protect() {
    local constraints=$venv/jetpack-constraints.txt name
    {
        echo "# What JetPack brings: written by install-jetson.sh"
        echo "numpy==${system[numpy]}"
        for name in opencv-python opencv-python-headless opencv-contrib-python opencv-contrib-python-headless \
            tensorrt tensorrt-cu12 tensorrt-cu13; do
            echo "$name<0"
        done
    } >"$constraints.part"
    mv "$constraints.part" "$constraints"
    printf '[global]\nconstraint = %s\n' "$constraints" >"$venv/pip.conf.part"
    mv "$venv/pip.conf.part" "$venv/pip.conf"
}

verify() {
    # shellcheck disable=SC2034  # filled through a name reference
    local -A now=()
    local name
    read_facts now "$venv/bin/python"
    for name in numpy cv2 tensorrt; do
        [[ ${now[$name]:-} == "${system[$name]}" && ${now[${name}_file]:-} == "${system[${name}_file]}" ]] ||
            return_fault "in $venv, $name is ${now[$name]:-missing} from ${now[${name}_file]:-nowhere}, JetPack's own is \
${system[$name]} from ${system[${name}_file]}"
    done
    (cd / && "$venv/bin/fer-edge" verify base >/dev/null) || return_fault "$venv/bin/fer-edge verify base does not pass"
}

fresh=false
return_fault() {
    if $fresh; then
        rm -rf "$venv"
        fail "$1; $venv has been removed again"
    fi
    fail "$1; remove $venv and run this again"
}

install() {
    local lock=$here/requirements/jetpack$jetpack.txt pip=("$venv/bin/python" -m pip install --quiet)
    choose_wheel
    if [[ -e $venv && ! -e $venv/pyvenv.cfg ]]; then
        fail "$venv exists and is no virtual environment; choose another place with --venv"
    fi
    if [[ -e $venv ]]; then
        grep -q '^include-system-site-packages = true' "$venv/pyvenv.cfg" ||
            fail "$venv cannot see JetPack's packages; remove it and run this again"
    else
        fresh=true
        trap 'rm -rf "$venv"' INT TERM
        python3 -m venv --system-site-packages "$venv" || return_fault "python3 cannot make $venv"
    fi
    rm -f "$venv/pip.conf" # its constraints have no hashes; `protect` writes it again
    say now "installing the locked requirements of JetPack $jetpack into $venv"
    # By hash and without dependencies, so that pip never resolves another NumPy or OpenCV.
    "${pip[@]}" --require-hashes --no-deps --only-binary :all: --requirement "$lock" ||
        return_fault "the locked requirements cannot be installed"
    say now "installing $(basename "$wheel")"
    "${pip[@]}" --no-deps --no-index --force-reinstall "$wheel" || return_fault "$wheel cannot be installed"
    protect
    verify
    trap - INT TERM
    say ok "fer-edge is at $venv/bin/fer-edge; NumPy, OpenCV and TensorRT are JetPack's own"
}

check_machine
((faults == 0)) || fail "$faults fault(s); nothing was installed"
if $check_only; then
    say ok "this machine can have fer-edge"
else
    install
fi
