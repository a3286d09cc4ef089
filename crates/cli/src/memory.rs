//! How the C library's allocator is set for this program.

/// Lets the allocator keep few arenas. FFmpeg's decoder threads come and go and each would leave the frames of its last
/// work behind in an arena of its own, eight per core: twice the memory, for nothing that could be measured.
/// To be called before any thread is started.
pub(crate) fn bound_arenas() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let arenas = i32::try_from(cores.clamp(2, 8)).unwrap_or(2);
        #[expect(unsafe_code, reason = "a setting of the C library")]
        // SAFETY: mallopt takes two integers and no other thread is running yet. A refusal changes nothing.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, arenas);
        }
    }
}
