"""The kernel's answers (csrc/probe/np_probe.h) as a dict; netpoll.probe puts them into words."""

cdef extern from "probe/np_probe.h" nogil:
    int NP_PROBE_UNTRIED
    struct np_probe:
        int setup_err
        int enable_err
        int enter_err
        int ext_arg_err
        int buf_ring_err
        int buf_inc_err
        int plain_setup_err
        int accept_multi_err
        int recv_multi_err
        int recv_bundle_err
        int no_iowait_err
        int send_zc_err
        int sendmsg_zc_err
        int buffers_err
        int sqpoll_err
        int pwait2_err
    void np_probe_ring(np_probe *facts)
    void np_probe_all(np_probe *facts)
    const char *np_probe_liburing_version()


def ring_facts(bint everything=False):
    """Asks the kernel: `{name: errno}`, 0 where the thing works, None where nobody asked.

    Without `everything` only what the choice of a backend needs, with one io_uring_setup call.
    """
    cdef np_probe facts
    with nogil:
        if everything:
            np_probe_all(&facts)
        else:
            np_probe_ring(&facts)
    answers = {
        "setup": facts.setup_err,
        "enable": facts.enable_err,
        "enter": facts.enter_err,
        "ext_arg": facts.ext_arg_err,
        "buf_ring": facts.buf_ring_err,
        "buf_inc": facts.buf_inc_err,
        "plain_setup": facts.plain_setup_err,
        "accept_multi": facts.accept_multi_err,
        "recv_multi": facts.recv_multi_err,
        "recv_bundle": facts.recv_bundle_err,
        "no_iowait": facts.no_iowait_err,
        "send_zc": facts.send_zc_err,
        "sendmsg_zc": facts.sendmsg_zc_err,
        "buffers": facts.buffers_err,
        "sqpoll": facts.sqpoll_err,
        "pwait2": facts.pwait2_err,
    }
    return {name: None if err == NP_PROBE_UNTRIED else -err for name, err in answers.items()}


def liburing_version():
    """The version of liburing that is linked in, "major.minor"."""
    return np_probe_liburing_version().decode()
