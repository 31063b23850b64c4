//! Day 11: the overlay: directories that lie on top of one another, seen as one.
//! (kernel: filesystems/overlayfs)

use std::fmt::Write;
use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::mount::MsFlags;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use nix::unistd::chdir;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::Result;
use crate::explain::{shell, step};
use crate::ids;

use super::DAY;

/// In the container's directory: its own layer.
const LAYER: &str = "layer";

/// The container's own layer, and where its overlay is mounted.
pub fn own_layer(dir: &Path) -> PathBuf {
    dir.join(LAYER)
}

/// In the directory of a container whose files are not whose they look like on the disk: a copy of its
/// layers, in ids of its own. (day 17)
pub const SHIFTED: &str = "shifted";

/// Errors for such a container in `dir`, where it does not run: nobody is there who has these ids.
pub fn refuse_shifted(dir: &Path) -> Result<()> {
    if dir.join(SHIFTED).exists() {
        bail!(
            "on the disk its files belong to ids of its user namespace, for they lie on a file system that cannot \
             show them as somebody else's; expected a container that runs, or one on ext4, xfs or btrfs"
        );
    }
    Ok(())
}

/// What the container has written.
pub fn upper(dir: &Path) -> PathBuf {
    dir.join(LAYER).join("upper")
}

// ANCHOR: build
/// An overlay of `layers`, the uppermost first, with the container's own layer on top, which
/// is in `dir`, the container's directory. Returns its root: a mount, attached over that layer.
///
/// For a process in a mount namespace of its own, whose mounts are private.
pub fn build(layers: &[PathBuf], dir: &Path) -> Result<OwnedFd> {
    build_of(layers, dir, &open_dir, &|_, _| Ok(()))
}

/// The same. `open` opens a layer, the container's own first; `get_ready` sees all that is open,
/// before the overlay is made.
pub fn build_of(
    layers: &[PathBuf],
    dir: &Path,
    open: &dyn Fn(&Path) -> Result<OwnedFd>,
    get_ready: &dyn Fn(&[OwnedFd], &OwnedFd) -> Result<()>,
) -> Result<OwnedFd> {
    let own = dir.join(LAYER);
    let top = layers.first().context("an overlay needs a layer")?;
    if let Some(layer) = layers.iter().find(|layer| own.starts_with(layer)) {
        bail!(
            "the state directory lies in the layer {layer:?}, which would change while it is used; expected \
             --root DIR elsewhere, or another layer"
        );
    }
    // One that is there looks as its container has made it look.
    if !own.join("upper").exists() {
        make_own_layer(top, &own)?;
    }
    let descriptors = Descriptors::all_that_are_allowed()?;
    let own_layer = open(&own)?;
    let lower = layers.iter().map(|layer| open(layer)).collect::<Result<Vec<_>>>()?;
    get_ready(&lower, &own_layer)?;
    let options = options(&lower, &own_layer) + of_a_person();
    mount_overlay(&options, layers, &own)?;
    drop((lower, own_layer));
    descriptors.restore()?;
    // By its path, where the overlay is now.
    open_dir(&own)
}
// ANCHOR_END: build

/// What is below the container's own layer, without it: the directories `layers` seen as
/// one. Nothing can be written there. For a process with mounts of its own, like [`build`].
pub fn build_lower(layers: &[PathBuf], dir: &Path) -> Result<OwnedFd> {
    let own = dir.join(LAYER);
    let descriptors = Descriptors::all_that_are_allowed()?;
    let lower = layers.iter().map(|layer| open_dir(layer)).collect::<Result<Vec<_>>>()?;
    let numbers: Vec<String> = lower.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
    let options =
        format!("lowerdir={},redirect_dir=off,metacopy=off,index=off{}", numbers.join(":"), of_a_person());
    mount_overlay(&options, layers, &own)?;
    drop(lower);
    descriptors.restore()?;
    open_dir(&own)
}

/// Opens the directory of a layer.
fn open_dir(dir: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(dir, flags, Mode::empty()).with_context(|| format!("open the layer {dir:?}"))
}

// ANCHOR: make_own_layer
/// Makes the container's own layer, the directory `own`, if it is not there: `upper`, for
/// what it writes, and `work`, where the kernel makes ready what then appears in `upper` in
/// one step.
///
/// In an overlay a directory looks as the uppermost one of its name does. So `/` looks as
/// `upper` does: that gets the owner and the mode that `top` has.
fn make_own_layer(top: &Path, own: &Path) -> Result<()> {
    // ANCHOR: day11_task2_make_own_layer_solution
    let looks = fs::metadata(top).with_context(|| format!("look at the layer {top:?}"))?;
    for dir in [own.to_owned(), own.join("work"), own.join("upper")] {
        let describe = || (format!("mkdir({dir:?}, 0o700)"), format!("mkdir -m 700 {}", shell(&dir)));
        step(DAY, describe, || match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            made => made,
        })?;
    }
    let upper = own.join("upper");
    let (uid, gid, mode) = (looks.uid(), looks.gid(), looks.mode() & 0o7777);
    let describe = || {
        let call = format!("chown({upper:?}, {uid}, {gid}), chmod({upper:?}, {mode:#o})");
        (call, format!("chown {uid}:{gid} {0} && chmod {mode:o} {0}", shell(&upper)))
    };
    // The mode last: a change of the owner takes set-user-ID away.
    step(DAY, describe, || {
        chown(&upper, Some(uid), Some(gid))?;
        fs::set_permissions(&upper, Permissions::from_mode(mode))
    })
    // ANCHOR_END: day11_task2_make_own_layer_solution
}
// ANCHOR_END: make_own_layer

// ANCHOR: options
/// What mount(2) is told: the layers by the numbers of their descriptors, as they are called
/// in /proc/self/fd. All options together have 4096 bytes, and 500 long paths are longer. And
/// a path may hold a colon or a comma, which mean something here; a number holds none.
fn options(lower: &[OwnedFd], own: &OwnedFd) -> String {
    // ANCHOR: day11_task1_options_solution
    let numbers: Vec<String> = lower.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
    let mut options = format!("lowerdir={},", numbers.join(":"));
    let own = own.as_raw_fd();
    let _ = write!(options, "upperdir={own}/upper,workdir={own}/work,");
    // What is in `upper` is to be whole, and to mean something without the layers below: no
    // file of which only the attributes are there, and no directory that is elsewhere below.
    options + "redirect_dir=off,metacopy=off,index=off"
    // ANCHOR_END: day11_task1_options_solution
}
// ANCHOR_END: options

/// Where the runtime is not the host's root, the overlay marks its files in attributes that anybody may
/// write. Then `nofollow` is the only value of redirect_dir that all kernels take, and the last one counts.
/// (day 17; kernel: filesystems/overlayfs, "User xattr")
fn of_a_person() -> &'static str {
    if ids::are_not_the_hosts() { ",userxattr,redirect_dir=nofollow" } else { "" }
}

/// The attribute of a directory that hides all that is below it.
pub fn opaque_attribute() -> &'static str {
    if ids::are_not_the_hosts() { "user.overlay.opaque" } else { "trusted.overlay.opaque" }
}

/// Whether it is an attribute of an overlay's own, by the beginning of its name.
pub fn is_an_overlays(attribute: &[u8]) -> bool {
    attribute.starts_with(b"trusted.overlay.")
        || attribute.starts_with(b"user.overlay.") && ids::are_not_the_hosts()
}

// ANCHOR: mount_overlay
/// Mounts the overlay that `options` say on `own`, the container's own layer. `layers` are
/// for people.
fn mount_overlay(options: &str, layers: &[PathBuf], own: &Path) -> Result<()> {
    // ANCHOR: day11_task1_mount_overlay_solution
    // Where the numbers are names. (Day 3 goes to the new root from here.)
    chdir("/proc/self/fd").context("chdir(/proc/self/fd)")?;
    let describe = || {
        let paths: Vec<String> = layers.iter().map(|layer| shell(layer).to_string()).collect();
        let by_hand = format!(
            "mount -t overlay -o lowerdir={},upperdir={own}/upper,workdir={own}/work overlay {own}",
            paths.join(":"),
            own = shell(own)
        );
        (format!("mount(\"overlay\", {own:?}, {options:?})"), by_hand)
    };
    let (overlay, flags) = (Some("overlay"), MsFlags::empty());
    step(DAY, describe, || nix::mount::mount(overlay, own, overlay, flags, Some(options)))
        .with_context(|| why_not(own))
    // ANCHOR_END: day11_task1_mount_overlay_solution
}
// ANCHOR_END: mount_overlay

/// The kernel says little more than EINVAL.
fn why_not(own: &Path) -> String {
    match statfs(own) {
        Ok(found) if found.filesystem_type() == OVERLAYFS_SUPER_MAGIC => format!(
            "the container's layer, {own:?}, lies on an overlay itself, and the kernel writes only into layers \
             that do not; expected --root DIR on ext4, xfs, btrfs or tmpfs"
        ),
        _ => format!(
            "the kernel could not lay the layers on top of one another (its reason: dmesg | tail -1). \"Invalid \
             argument\" means: one of them, or {own:?}, lies on a file system that overlayfs does not take; \"Too \
             many levels of symbolic links\": one of them lies in another; \"No such device\": this kernel has \
             no overlayfs"
        ),
    }
}

/// More descriptors than whoever started us takes for a start, for as long as the layers are
/// open: as many as he allows. The command has the limits that it would have had.
/// (getrlimit(2), "soft" and "hard")
struct Descriptors(Rlimit);

impl Descriptors {
    fn all_that_are_allowed() -> Result<Descriptors> {
        let before = getrlimit(Resource::Nofile);
        let all = Rlimit { current: before.maximum, maximum: before.maximum };
        setrlimit(Resource::Nofile, all).context("setrlimit(RLIMIT_NOFILE)")?;
        Ok(Descriptors(before))
    }

    fn restore(self) -> Result<()> {
        setrlimit(Resource::Nofile, self.0).context("setrlimit(RLIMIT_NOFILE)")
    }
}
