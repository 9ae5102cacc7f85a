# What the build `sanitize` needs to know; nothing in any other build.

cdef extern from *:
    """
    #if defined(__SANITIZE_ADDRESS__)
    extern void __asan_handle_no_return(void);
    #define flashpol_leave_stack() __asan_handle_no_return()
    #else
    #define flashpol_leave_stack() ((void)0)
    #endif
    """
    # Called before a switch to another greenlet, which copies the stack of this one. AddressSanitizer forgets which
    # parts of the stack lie between variables: it would report the copy, and the other greenlet's use of them.
    void leave_stack "flashpol_leave_stack"() nogil
