// Random places in memory, asked for before they are needed.
#pragma once

namespace msem {

inline void ask_for([[maybe_unused]] const void* place) {
#if defined(__GNUC__)
  __builtin_prefetch(place, 1);
#endif
}

}  // namespace msem
