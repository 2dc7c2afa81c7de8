#include <Eigen/Eigenvalues>

#include "base/linalg.hpp"

namespace msem {

SymmetricEigen::SymmetricEigen(const Matrix& a) {
  if (a.size() == 0) {  // a level without variables; Eigen reads its first element
    vectors = a;
    converged = true;
    return;
  }
  const Eigen::SelfAdjointEigenSolver<Matrix> eigen(a);
  values = eigen.eigenvalues();
  vectors = eigen.eigenvectors();
  converged = eigen.info() == Eigen::Success;
}

}  // namespace msem
